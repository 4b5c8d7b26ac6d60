-- docs.lua - made-up places and people, their documents, and how an oracle looks them up.
local lib = require "lib"
local docs = {}

local types = lib.split("bridge mill tower museum library station harbor school garden theater castle market lighthouse factory park")

-- questions, the line in the document, what to look for on the page, where the value stands in
-- that line, what sort of value it is, the answer.
local relations = {
  { "When was {e} built?|In which year was {e} built?", "It was built in the year {v}.", "in the year", "built in the year (%d+)", "year", "{E} was built in {v}." },
  { "Who built {e}?|Who was the builder of {e}?", "Its builder was {v}.", "builder was", "builder was ([%a ]+)", "person", "The builder of {e} was {v}." },
  { "Who owns {e}?|Who is the owner of {e}?", "The owner is {v}.", "owner is", "owner is ([%a ]+)", "person", "The owner of {e} is {v}." },
  { "How high is {e}?|What is the height of {e}?|How tall is {e}?", "It is {v} meters high.", "meters high", "is (%d+) meters high", "number", "{E} is {v} meters high." },
  { "How long is {e}?|What is the length of {e}?", "Its length is {v} meters.", "length is", "length is (%d+) meters", "number", "{E} is {v} meters long." },
  { "How many visitors does {e} have in a year?|How many people visit {e} each year?", "It has {v} visitors each year.", "visitors", "has (%d+) visitors", "number", "{E} has {v} visitors a year." },
  { "What did {e} cost?|How much did {e} cost?", "The cost was {v} crowns.", "cost was", "cost was (%d+) crowns", "number", "{E} cost {v} crowns." },
  { "Which color has {e}?|What color is {e}?", "Its color is {v}.", "color is", "color is (%a+)", "word", "The color of {e} is {v}." },
  { "In which town is {e}?|Where is {e}?|In what town does {e} stand?", "It stands in the town of {v}.", "town of", "town of (%a+)", "name", "{E} is in {v}." },
  { "Who leads {e}?|Who is the director of {e}?", "The director is {v}.", "director is", "director is ([%a ]+)", "person", "The director of {e} is {v}." },
  { "What is the code of {e}?|Which code does {e} have?", "The code is {v}.", "code is", "code is ([%w-]+)", "code", "The code of {e} is {v}." },
  { "Who opened {e}?|By whom was {e} opened?", "It was opened by {v}.", "opened by", "opened by ([%a ]+)", "person", "{E} was opened by {v}." },
  { "What is {e} made of?|Of which material is {e} made?", "It is made of {v}.", "made of", "made of (%a+)", "word", "{E} is made of {v}." },
  { "How many rooms has {e}?|How many rooms are in {e}?", "It has {v} rooms.", "rooms", "has (%d+) rooms", "number", "{E} has {v} rooms." },
}
local birth = { "Where was {e} born?|In which town was {e} born?", "The place of birth is {v}.", "place of birth", "place of birth is (%a+)", "name", "{E} was born in {v}." }

local function value(r, sort)
  if sort == "year" then return tostring(r:int(1100, 2025)) end
  if sort == "person" then return r:full_name() end
  if sort == "number" then return tostring(r:number(2, 5)) end
  if sort == "word" then return r:fresh() end
  if sort == "name" then return r:name() end
  return (r:fresh():upper():sub(1, 3) .. "-" .. r:number(2, 4))
end

-- A fact that the place's page does not have.
function docs.lacking(r, e)
  local rel
  repeat
    rel = r:pick(relations)
    local has = false
    for _, f in ipairs(e.facts) do has = has or f.rel == rel end
  until not has
  return { rel = rel, value = "" }
end

local function new_fact(r, rel)
  local v = value(r, rel[5])
  return { rel = rel, value = v, line = lib.fill(rel[2], { v = v }) }
end

local function place(r)
  local kind = r:pick(types)
  local name = r:name()
  return { title = name .. " " .. lib.title(kind), query = name .. " " .. kind, name = name, the = "the " .. name .. " " .. kind, facts = {} }
end
docs.stranger = place

function docs.fact_of(r) return new_fact(r, r:pick(relations)) end

-- Lines of prose around the facts; the title and an opening sentence come first.
local function text_of(r, e, long)
  local lines = {}
  for _, f in ipairs(e.facts) do lines[#lines + 1] = f.line end
  for _ = 1, long and r:int(12, 24) or r:int(0, 3) do
    lines[#lines + 1] = r:clean_sentence()
  end
  r:shuffle(lines)
  table.insert(lines, 1, "This page is about " .. e.the .. ".")
  return "# " .. e.title .. "\n\n" .. table.concat(lines, "\n") .. "\n"
end

local function file_of(e) return e.title:lower():gsub(" ", "-") .. ".txt" end

function docs.world(r, o)
  local w = { places = {}, docs = {} }
  for i = 1, o.n do
    local e = place(r)
    local rels = r:shuffle({ table.unpack(relations) })
    for k = 1, r:int(3, 5) do e.facts[k] = new_fact(r, rels[k]) end
    w.places[i] = e
    w.docs[i] = { file_of(e), text_of(r, e, o.long) }
  end
  return w
end

function docs.choose(r, w)
  local e = r:pick(w.places)
  return e, r:pick(e.facts)
end

-- A builder with a page: (place, person, the birth fact).
function docs.person(r, w)
  local e = r:pick(w.places)
  e.facts = { new_fact(r, relations[2]), new_fact(r, relations[r:int(3, #relations)]) }
  e.builder = e.facts[1]
  local name = e.builder.value
  local p = { title = name, query = name, name = name, the = name, facts = { new_fact(r, birth), new_fact(r, relations[11]) } }
  for i, d in ipairs(w.docs) do
    if d[1] == file_of(e) then w.docs[i] = { d[1], text_of(r, e) } end
  end
  table.insert(w.docs, { file_of(p), text_of(r, p) })
  return e, p, p.facts[1]
end

local function upper(s) return s:sub(1, 1):upper() .. s:sub(2) end

local frames = { "{q}", "{q}", "According to the documents, {l}", "Search the documents: {q}", "{q} Please cite the source.",
  "Look it up in the documents: {q}", "{q} Give the source." }

function docs.question(r, e, f, pronoun)
  local forms = {}
  for s in f.rel[1]:gmatch("[^|]+") do forms[#forms + 1] = s end
  local q = lib.fill(r:pick(forms), { e = pronoun or e.the })
  return lib.fill(r:pick(frames), { q = q, l = q:sub(1, 1):lower() .. q:sub(2) })
end

local function cursor_of(page) return math.tointeger(tonumber(page:match("^%[(%d+)%]"))) end
-- The page's lines, unwrapped: { number, text }.
function docs.lines(page)
  local t = {}
  for n, s in page:gmatch("L(%d+): ([^\n]*)") do t[#t + 1] = { math.tointeger(tonumber(n)), s } end
  return t
end

local function hit(results, e)
  for id, title in results:gmatch("【(%d+)†([^;】]*)") do
    if lib.trim(title:gsub("\nL%d+: ", "")):lower() == e.title:lower() then return math.tointeger(tonumber(id)) end
  end
end

-- Looks for the fact on an open page. -> value, line; nil when the page lacks it
local function find_on(ctx, think, cursor, f)
  local found = ctx.call(think, "find", { { "pattern", f.rel[3] }, { "cursor", cursor } })
  return found:match(f.rel[4]), found:match("match at L(%d+)")
end

-- search, open the page of that title, find. -> value, cursor, line; nil when nothing fits
-- `lead` stands before the first thought; `after` names what is to be looked up next.
function docs.find_fact(ctx, e, f, lead, after)
  local need = "I need " .. f.rel[3] .. (after and ", then " .. after.rel[3] or "") .. ". "
  local results = ctx.call((lead or "") .. need .. "I will search for " .. e.query .. ".", "search", { { "query", e.query } })
  local id = hit(results, e)
  if not id then return nil end
  local page = ctx.call(e.title .. " is result " .. id .. ". I will open it.", "open", { { "id", id }, { "cursor", cursor_of(results) } })
  e.cursor = cursor_of(page)
  local v, line = find_on(ctx, need .. "I will find it on the page.", e.cursor, f)
  return v, e.cursor, line
end

local function say(e, f, v, cursor, line)
  return lib.fill(f.rel[6], { e = e.the, E = upper(e.the), v = v }) .. (" 【%d†L%s-L%s】"):format(cursor, line, line)
end

local function answer(ctx, e, f, v, line)
  if v then
    ctx.answer("Line " .. line .. " says it.", say(e, f, v, e.cursor, line))
  else
    ctx.answer("The page does not say it.", "The documents do not say this about " .. e.the .. ".")
  end
end

function docs.lookup(ctx, e, f, lead)
  local v, cursor, line = docs.find_fact(ctx, e, f, lead)
  if not v and not cursor then
    ctx.answer("No document fits.", "The documents say nothing about " .. e.the .. ".")
    return
  end
  answer(ctx, e, f, v, line)
end

-- A second fact of a page that was opened in an earlier turn: the page is still in the history.
function docs.again(ctx, e, f)
  local v, line = find_on(ctx, "The page is still open. I need " .. f.rel[3] .. ". I will find it.", e.cursor, f)
  answer(ctx, e, f, v, line)
end

-- Does the answer state the value and cite lines, seen in this session, that hold it?
function docs.cited(world, turn, want)
  local answer = world.answers[turn]
  if not lib.says(answer, want) then return false, "the answer lacks '" .. want .. "'" end
  local c, a, b = answer:match("【(%d+)†L(%d+)%-L(%d+)】")
  if not c then return false, "no citation" end
  a, b = tonumber(a), tonumber(b)
  if b - a > 4 then return false, "the citation covers too much" end
  local title
  for _, call in ipairs(world.calls) do
    if call.result:match("^%[" .. c .. "%]") then
      title = call.result:match("^%[%d+%] (.-) %(")
      for _, l in ipairs(docs.lines(call.result)) do
        if l[1] >= a and l[1] <= b and l[2]:find(want, 1, true) then return true end
      end
    end
  end
  -- A line that `find` showed of that page counts as seen.
  for _, call in ipairs(world.calls) do
    if title and call.result:find("in `" .. title .. "`", 1, true) then
      for n, line in call.result:gmatch("match at L(%d+)】\nL%d+: ([^\n]*)") do
        n = tonumber(n)
        if n >= a and n <= b and line:find(want, 1, true) then return true end
      end
    end
  end
  return false, "the cited lines do not hold the fact"
end

return docs
