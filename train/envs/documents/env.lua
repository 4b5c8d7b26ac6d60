-- documents/env.lua - family 3: questions answered from a document collection, through
-- `search`, `open` and `find`, with a citation. The verifier follows the citation: the cited
-- lines of the cited page, as the tools showed it, must hold the fact.
local docs = require "docs"

local kinds = {}
local function kind(name, weight, make) kinds[#kinds + 1] = { name = name, weight = weight, make = make } end

kind("fact", 46, function(r)
  local w = docs.world(r, { n = r:int(1, r:chance(20) and 7 or 3) })
  local e, f = docs.choose(r, w)
  return {
    requests = { docs.question(r, e, f) },
    docs = w.docs,
    solve = function(ctx) docs.lookup(ctx, e, f) end,
    check = function(world) return docs.cited(world, 1, f.value) end,
  }
end)

kind("long", 26, function(r)
  local w = docs.world(r, { n = r:int(1, 3), long = true })
  local e, f = docs.choose(r, w)
  return {
    requests = { docs.question(r, e, f) },
    docs = w.docs,
    solve = function(ctx) docs.lookup(ctx, e, f) end,
    check = function(world) return docs.cited(world, 1, f.value) end,
  }
end)

-- The builder of a place has a document of their own.
kind("hop", 16, function(r)
  local w = docs.world(r, { n = r:int(1, 3) })
  local e, p, f = docs.person(r, w)
  return {
    requests = { r:ask({ "Where was the builder of {e} born?", "In which town was the builder of {e} born?", "Find the birthplace of the builder of {e}." }, { e = e.the }) },
    docs = w.docs,
    solve = function(ctx)
      local name = docs.find_fact(ctx, e, e.builder, nil, f)
      docs.lookup(ctx, p, f, "The builder is " .. name .. ". ")
    end,
    check = function(world) return docs.cited(world, 1, f.value) end,
  }
end)

kind("lacking", 6, function(r)
  local w = docs.world(r, { n = r:int(1, 3) })
  local e = r:pick(w.places)
  local f = docs.lacking(r, e)
  return {
    requests = { docs.question(r, e, f) },
    docs = w.docs,
    solve = function(ctx) docs.lookup(ctx, e, f) end,
    check = function(world)
      return world.answers[1]:find("do not say") ~= nil and #world.calls >= 2 and not world.answers[1]:find("【")
    end,
  }
end)

kind("absent", 10, function(r)
  local w = docs.world(r, { n = r:int(1, 4) })
  local e = docs.stranger(r)
  local f = docs.fact_of(r, e)
  return {
    requests = { docs.question(r, e, f) },
    docs = w.docs,
    solve = function(ctx) docs.lookup(ctx, e, f) end,
    check = function(world)
      -- Either way of saying that the documents lack it is true, about the place that was asked for.
      local said = world.answers[1]
      local lacks = said:find("nothing about", 1, true) or said:find("do not say", 1, true)
      return lacks ~= nil and said:find(e.name, 1, true) ~= nil and #world.calls >= 1 and not said:find("【")
    end,
  }
end)

return require("family").new({ name = "documents", family = 3, about = "questions answered from documents" }, { "search", "open", "find" }, kinds)
