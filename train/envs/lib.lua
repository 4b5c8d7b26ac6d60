-- lib.lua - what every environment draws from: a seeded generator, random names, numbers
-- and sentences, filled-in wordings, and checks on answers. Nothing here is a list of names:
-- each one is built letter by letter from the seed, so that copying is the only way to win.
local lib = {}

-- SplitMix64: the same numbers on every machine and in every Lua 5.4.
local Rng = {}
Rng.__index = Rng

-- The seed goes through the mixer twice: SplitMix64 streams of neighbouring states overlap.
function lib.rng(seed)
  local r = setmetatable({ s = seed }, Rng)
  local a = r:next()
  r.s = a * 0x2545F4914F6CDD1D + seed
  return r
end

function Rng:next()
  self.s = self.s + 0x9E3779B97F4A7C15
  local z = self.s
  z = (z ~ (z >> 30)) * 0xBF58476D1CE4E5B9
  z = (z ~ (z >> 27)) * 0x94D049BB133111EB
  return (z ~ (z >> 31)) >> 1
end

function Rng:int(a, b) return a + self:next() % (b - a + 1) end
function Rng:chance(percent) return self:int(1, 100) <= percent end
function Rng:pick(list) return list[self:int(1, #list)] end

function Rng:shuffle(list)
  for i = #list, 2, -1 do
    local j = self:int(1, i)
    list[i], list[j] = list[j], list[i]
  end
  return list
end

-- A number whose length is drawn first, so that short and long ones are equally common.
function Rng:number(min_digits, max_digits)
  local d = self:int(min_digits, max_digits)
  if d == 1 then return self:int(1, 9) end
  return self:int(10 ^ (d - 1) // 1 | 0, (10 ^ d // 1 | 0) - 1)
end

-- A long number of few different digits: the hardest thing to copy one digit at a time.
function Rng:digits()
  local a, b, s = self:int(0, 9), self:int(0, 9), ""
  if self:chance(50) then a, b = 0, 1 end
  for i = 1, self:int(2, 16) do s = s .. (i == 1 and b or self:chance(12) and self:int(0, 9) or self:chance(50) and a or b) end
  return s
end

local function split(s)
  local t = {}
  for w in s:gmatch("%S+") do t[#t + 1] = w end
  return t
end
lib.split = split

local onset = split("b c d f g h j k l m n p r s t v w z b d k l m n r s t th sh ch br cr dr fr gr " ..
  "pr tr bl cl fl gl pl sl st sp sk sc sw qu wh kn y")
local nucleus = split("a e i o u a e i o u a e o ea ee oo ou ai oa ie y au ow")
local coda = split("n r s t l m d n r s t l ck nd nt st rd ll ss ng rt mp ch th sh x b g p k ve ce ge")
local suffix = split("er ing ed ly s en on el le y ion ent ard ow et al ure est ish ot a o ia")

-- For more records of what a newcomer types: a percentage of names that are words of everyday
-- speech. 0 in tests and evaluation, where one seed is one task; host.lua sets it.
lib.plain = 0

-- One word of 3 to 10 lower-case letters: open syllables, English look-alikes, or noise.
function Rng:word()
  if lib.plain > 0 and self:chance(lib.plain // 2) then return lib.plain_word(self) end
  local style, w = self:int(1, 10), ""
  if style <= 4 then
    for _ = 1, self:int(2, 3) do
      w = w .. self:pick(onset):sub(1, 2) .. self:pick(nucleus):sub(1, 1)
    end
  elseif style <= 8 then
    w = self:pick(onset) .. self:pick(nucleus)
    if self:chance(70) then w = w .. self:pick(coda) end
    if self:chance(65) then w = w .. self:pick(suffix) end
    if #w < 3 then w = w .. self:pick(coda) end
  else
    for _ = 1, self:int(3, 7) do w = w .. string.char(97 + self:int(0, 25)) end
  end
  return #w > 10 and w:sub(1, 10) or w
end

-- What people call things and files; and words that a name may begin with without meaning them.
local everyday = split("river lake heron notes todo score scores price prices age apples banana coffee tea " ..
  "hello world lisa ben ada anna paul mark london paris berlin team budget sales invoice recipe diary journal " ..
  "contacts shopping sugar flour butter pepper tomato orange yellow purple silver golden weight speed points " ..
  "level rate size port host user admin server client timeout volume width height debug theme language " ..
  "project meeting monday friday july august holiday travel music movie dragon wizard planet rocket engine " ..
  "python shell linux kernel memory screen keyboard mouse laptop phone camera photo picture summary draft " ..
  "ideas tasks plan goals letters numbers words names results people students members animals plants flowers")
local openers = split("while then with this that list read file line count the for and from find open set sum show " ..
  "print move copy name test data one two all any new out over under text word")

local function everyday_word(r)
  if r:chance(70) then return r:pick(everyday) end
  return r:pick(openers) .. r:pick(onset):sub(1, 2) .. r:pick(nucleus):sub(1, 1) .. (r:chance(40) and r:pick(coda) or "")
end

-- Words of requests, thoughts and results: after a blank the tokenizer has most of them in one
-- piece with it, after a quote or a slash not, so as names they must be learnt one by one.
local spoken = split("string will need code use result file line lines has python page about for with this " ..
  "search count here open only answer should none from echo value output edit have over results many says been " ..
  "builder done documents market number after harbor tools garden user question mill bridge largest smallest " ..
  "block format then list numbers text year museum that tower thank meters lighthouse factory castle town school " ..
  "stands park words library what last shell below high station above word closed files morning mean near under " ..
  "beside theater cost before length behind rooms decimals without total find made your again part there director " ..
  "visitors owner color access example function like link other plain quotes reply type while writing tell repeat " ..
  "read which each today sort one night twice noon week source lowest long stood worked fell played gone " ..
  "often much such began walked highest ready teacher want farmer went lived birth percent place forest paper " ..
  "field came doctor evening first story ended fire table turned bird slept song storm bytes winter horse child " ..
  "road wall door bread window fish house cloud lamp rows small apple king look train heron report letter times " ..
  "boat stone hill summer folder added prime range exit zero large them change please blue give size nothing call " ..
  "white math dark slow quick bright quiet document cold dog milk egg eggs cat tree water music salt rice wine old " ..
  "new red green warm loud short table report king box the and not but day sun end mode key")

function lib.plain_word(r)
  local k = r:int(1, 10)
  if k <= 2 then return r:pick(everyday) end
  if k <= 6 then return r:pick(spoken) end
  return r:pick(spoken) .. r:pick(onset):sub(1, 2) .. r:pick(nucleus):sub(1, 1) .. (r:chance(40) and r:pick(coda) or "")
end

-- A word not used before by this generator, and no part of any of them.
function Rng:fresh()
  self.used = self.used or {}
  while true do
    local plain = lib.plain > 0 and self:chance(lib.plain)
    local w = plain and lib.plain_word(self) or self:chance(16) and everyday_word(self) or self:word()
    local ok = #w >= 3 and (lib.plain > 0 or not lib.common[w])
    for _, u in ipairs(self.used) do
      if u:find(w, 1, true) or w:find(u, 1, true) then ok = false end
    end
    if ok then
      self.used[#self.used + 1] = w
      return w
    end
  end
end

-- A fresh word that is not `w`: the header of a table is no row.
function lib.other(r, w)
  local x = r:fresh()
  return x ~= w and x or lib.other(r, w)
end

function lib.title(w) return w:sub(1, 1):upper() .. w:sub(2) end
function Rng:name() return lib.title(self:fresh()) end
function Rng:full_name() return self:name() .. " " .. self:name() end

-- An identifier: word, two words, a word and digits, a code.
function Rng:ident()
  local k = self:int(1, 10)
  if k <= 5 then return self:fresh() end
  if k <= 7 then return self:fresh() .. "_" .. self:fresh() end
  if k <= 9 then return self:fresh() .. self:int(1, 99) end
  return self:fresh():upper():sub(1, 3) .. "-" .. self:int(100, 9999)
end

function Rng:code()
  local k = self:int(1, 3)
  if k == 1 then return self:fresh():upper() .. "-" .. self:number(2, 4) end
  local s = ""
  for _ = 1, self:int(5, 10) do
    local c = self:int(0, 35)
    s = s .. (c < 10 and string.char(48 + c) or string.char(87 + c))
  end
  return s
end

function Rng:file(ext)
  ext = ext or self:pick { "txt", "txt", "txt", "md", "log", "csv", "conf", "ini", "dat", "json", "yaml", "list" }
  local k = self:int(1, 8)
  local stem = self:fresh()
  if k == 6 then stem = stem .. "_" .. self:fresh() end
  if k == 7 then stem = stem .. "-" .. self:fresh() end
  if k == 8 then stem = stem .. self:int(1, 99) end
  return stem .. "." .. ext
end

-- Ordinary words give lines their look; the random ones give them their content.
local nouns = split("house garden market road bridge mill train boat field table window letter song " ..
  "story lamp wall door tower harbor forest hill stone morning evening winter summer storm cloud fire " ..
  "bread apple horse bird fish dog heron child farmer doctor teacher king report box paper city town")
local verbs = split("stood walked lived waited slept worked played turned opened closed ended began came went stayed fell")
local adjs = split("old new small large high low dark bright cold warm quiet loud slow quick green red blue white long short")
local preps = split("in near behind above below under with after before beside")
lib.common = {}
for _, list in ipairs { nouns, verbs, adjs, preps } do
  for _, w in ipairs(list) do lib.common[w] = true end
end

-- One line of prose; `w`, if given, stands in it exactly once as a whole word.
function Rng:sentence(w)
  local function thing()
    return self:chance(50) and self:pick(nouns) or self:word()
  end
  local x = w or thing()
  local k = self:int(1, 8)
  local adj, verb, prep = self:pick(adjs), self:pick(verbs), self:pick(preps)
  if k == 1 then return ("The %s was %s %s the %s."):format(x, adj, prep, thing()) end
  if k == 2 then return ("A %s %s %s the %s all %s."):format(thing(), verb, prep, x, self:pick { "day", "night", "week", "morning" }) end
  if k == 3 then return ("We %s %s the %s and the %s."):format(verb, prep, x, thing()) end
  if k == 4 then return ("%s: %s, %d %s."):format(lib.title(self:word()), x, self:int(2, 99), thing()) end
  if k == 5 then return ("The %s %s over the %s is %s."):format(adj, thing(), x, self:pick { "closed", "open", "gone", "here", "ready" }) end
  if k == 6 then return ("%s saw the %s %s."):format(lib.title(self:word()), x, self:pick { "today", "twice", "again", "at noon" }) end
  if k == 7 then return ("No %s %s here, only %s."):format(thing(), verb, x) end
  return ("%s %s %s %s %s"):format(self:word(), x, prep, self:word(), thing())
end

-- n lines, `hits` of which hold w.
function Rng:lines(n, w, hits)
  local t = {}
  for i = 1, n do
    t[i] = i <= (hits or 0) and self:sentence(w) or self:clean_sentence(w)
  end
  return self:shuffle(t)
end

function Rng:clean_sentence(w)
  while true do
    local s = self:sentence()
    if not w or not s:lower():find(w:lower(), 1, true) then return s end
  end
end

-- "{a} and {b}" with a table of values.
function lib.fill(text, values)
  return (text:gsub("{(%w+)}", function(k)
    local v = values[k]
    assert(v ~= nil, "no value for {" .. k .. "}")
    return tostring(v)
  end))
end

-- One of the wordings; with lib.plain also one of those that only training draws from.
local function wording(r, list)
  return r:pick(lib.plain > 0 and list.more and r:chance(40) and list.more or list)
end

-- A request: one of the wordings, filled, now and then with a polite frame.
function Rng:ask(wordings, values)
  local s = lib.fill(wording(self, wordings), values)
  if self:chance(12) then s = s:gsub("^What is ", "What's ") end
  if self:chance(8) then s = s:gsub("^How many ([%a]+) are in ", "How many %1 in ") end
  local k = self:int(1, 18)
  if lib.plain > 0 and self:chance(8) then k = 10 end -- the end of a list is what it hides
  local lower = s:sub(1, 1):lower() .. s:sub(2)
  if k == 8 then return (lower:gsub("[?.]$", "")) end
  if k == 9 then return self:pick { "hi, ", "Hi, ", "Hey, ", "ok, ", "So, ", "please tell me: " } .. lower end
  if k == 10 then return (lower:gsub("([?.]?)$", ", please%1", 1)) end
  if k == 1 then return "Please answer: " .. lower end
  if k == 2 then return "Hello. " .. s end
  if k == 3 then return "I have a question. " .. s end
  if k == 4 then return s .. " Thank you." end
  if k == 5 and s:sub(-1) == "?" then return s:sub(1, -2) end
  if k == 6 then return lower end
  if k == 7 and s:sub(-1) == "?" then return "Can you tell me: " .. lower end
  return s
end

function Rng:order(wordings, values)
  local s = lib.fill(wording(self, wordings), values)
  local k = self:int(1, 15)
  local lower = s:sub(1, 1):lower() .. s:sub(2)
  if k == 7 then return lower end
  if k == 8 then return (lower:gsub("%.$", "")) end
  local verb = not (s:find("^In ") or s:find("^After ") or s:find("^Please "))
  if k == 1 and verb then return "Please " .. lower end
  if k == 2 then return "Hello. " .. s end
  if k == 3 and verb then return "Could you " .. lower:gsub("%.$", "") .. "?" end
  if k == 4 then return s .. " Thank you." end
  if k == 5 and verb then return self:pick { "I want you to ", "Can you please ", "Now ", "I would like you to " } .. lower end
  if k == 6 then return (s:gsub("%.$", "")) end
  return s
end

-- A command that shows the line of a key and gives it another value, whatever stands between.
function lib.set_command(key, value, path)
  return ("grep '^%s' %s && sed -i 's/^\\(%s[ =:]*\\).*/\\1%s/' %s"):format(key, path, key, value, path)
end

-- The output of a tool without its status line.
function lib.body(text)
  local s = text:gsub("\n?%[[^\n]*%]%s*$", "")
  return (s:gsub("%s+$", ""))
end
function lib.trim(s) return (s:gsub("^%s+", ""):gsub("%s+$", "")) end

-- 1234.50 -> 1234.5, 3.0 -> 3, "1,234" -> 1234: how numbers are compared.
local function plain(s)
  s = s:gsub(",", ""):gsub("%.$", "")
  if s:find("%.") then s = s:gsub("0+$", ""):gsub("%.$", "") end
  return s
end

-- Does the answer state this number (or word) as a whole?
function lib.says(answer, value)
  value = tostring(value)
  if #answer > 400 then return false end
  if value:match("^%-?[%d.]+$") then
    for s in answer:gmatch("%-?%d[%d,.]*") do
      if plain(s) == plain(value) then return true end
    end
    return false
  end
  local at = 1
  while true do
    local a, b = answer:find(value, at, true)
    if not a then return false end
    local before, after = answer:sub(a - 1, a - 1), answer:sub(b + 1, b + 1)
    if not before:match("%w") and not after:match("%w") then return true end
    at = a + 1
  end
end

function lib.read(path)
  local f = io.open(path, "rb")
  if not f then return nil end
  local s = f:read("a")
  f:close()
  return s
end

function lib.write(path, text)
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
end

return lib
