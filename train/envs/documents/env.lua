-- documents/env.lua - family 3: questions answered from a document collection, through
-- `search`, `open` and `find`, with a citation. The verifier follows the citation: the cited
-- lines of the cited page, as the tools showed it, must hold the fact.
local docs = require "docs"
local lib = require "lib"

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

-- What anybody asks a machine first: the world at large, of which the documents here say nothing.
-- Weighs nothing where one seed must stay one task, so only training draws it.
local things = { "France", "Germany", "Italy", "Spain", "Japan", "China", "India", "Brazil", "Canada", "Egypt", "Poland", "Norway",
  "Kenya", "Peru", "Australia", "Russia", "England", "Paris", "London", "Berlin", "Rome", "Tokyo", "Madrid", "New York", "Hamlet",
  "Faust", "Shakespeare", "Mozart", "Einstein", "Newton", "Napoleon", "Mount Everest", "the Eiffel Tower", "the Nile", "the moon",
  "Mars", "Linux", "Python", "Debian", "the telephone", "the steam engine", "the wheel", "Moby Dick", "the Bible", "Wikipedia" }
local asked = {
  { "What is the capital of {x}?", "the capital" }, { "Which city is the capital of {x}?", "the capital" },
  { "What is the population of {x}?", "the population" }, { "How many people live in {x}?", "the population" },
  { "Who is the president of {x}?", "the president" }, { "What language do they speak in {x}?", "the language" },
  { "What is the currency of {x}?", "the currency" }, { "How high is {x}?", "the height" }, { "How old is {x}?", "the age" },
  { "How far away is {x}?", "the distance" }, { "Who wrote {x}?", "the author" }, { "Who invented {x}?", "the inventor" },
  { "Who made {x}?", "the maker" }, { "When was {x} built?", "the year" }, { "When was {x} born?", "the year" },
  { "Where is {x}?", "the place" }, { "Who was {x}?", "who that was" }, { "Who is {x}?", "who that is" },
}
kind("world", lib.plain > 0 and 30 or 0, function(r)
  local w = docs.world(r, { n = r:int(1, 3) })
  local q, x = r:pick(asked), r:chance(60) and r:pick(things) or lib.title(r:word())
  return {
    requests = { r:ask({ q[1] }, { x = x }) },
    docs = w.docs,
    solve = function(ctx)
      local name = x:gsub("^the ", "")
      ctx.call("I need " .. q[2] .. ". I will search for " .. name .. ".", "search", { { "query", name } })
      ctx.answer("No document fits.", "The documents say nothing about " .. x .. ".")
    end,
    check = function(world)
      return world.answers[1]:find("nothing about " .. x, 1, true) ~= nil and #world.calls >= 1
    end,
  }
end)

return require("family").new({ name = "documents", family = 3, about = "questions answered from documents" }, { "search", "open", "find" }, kinds)
