-- session/env.lua - family 4: several turns in one session, where a later question leans on an
-- earlier answer or call, and plain talk that needs no tool.
local lib = require "lib"
local docs = require "docs"
local says = lib.says

local kinds = {}
local function kind(name, weight, make) kinds[#kinds + 1] = { name = name, weight = weight, make = make } end

local function bash(ctx, think, command) return ctx.call(think, "bash", { { "command", command } }) end
local function python(ctx, think, code) return lib.body(ctx.call(think, "python", { { "code", code } })) end
local function used_tool(world, turn)
  for _, c in ipairs(world.calls) do if c.turn == turn then return true end end
  return false
end

-- What it is and can do. Each intent: wordings, thought, answer, and a word that no fitting
-- answer can lack.
local talk = {
  { { "Who are you?", "What are you?", "What is your name?", "Tell me who you are.", "Introduce yourself.", "Are you a person?", "Who am I talking to?", "What should I call you?", "Are you a robot?", "Who made you?", "What is agentd?", "who are you", "Are you ChatGPT?", "What model are you?" },
    "This is about me. No tool is needed.", "I am agentd, a small assistant that runs on this machine.", "agentd" },
  { { "What can you do?", "How can you help me?", "What are you able to do?", "What do you do?", "Tell me what you can do.", "What is your job?", "How can I use you?", "What kind of tasks can you do?", "Hi, what can you do for me?", "what can you do", "Help.", "What can I ask you?", "Can you help me?", "I need help." },
    "This is about my work. No tool is needed.", "I can compute with python, read and change files in the workspace, and answer from documents.", "files" },
  { { "Which tools do you have?", "What tools can you use?", "List your tools.", "Name the tools you can call.", "Do you have tools?", "What are your tools?", "What tools do you have?", "Which tools can you use?" },
    "This is about my tools. I only name them.", "I have bash, python, str_replace_editor, search, open and find.", "python" },
  { { "Hello.", "Hi.", "Good morning.", "Hello there.", "Hey.", "Good evening.", "Hi there.", "Hello, agentd.", "hi", "hello", "Hello!", "Hi!", "How are you?", "Hello, how are you?" },
    "This is a greeting.", "Hello. What can I do for you?", "hello" },
  { { "Thank you.", "Thanks.", "Thanks a lot.", "That was helpful, thank you.", "Great, thanks.", "Well done.", "Good work.", "thanks", "Thank you!", "Thanks!" },
    "This is thanks.", "You are welcome.", "welcome" },
  { { "Goodbye.", "Bye.", "See you later.", "That is all for today.", "Good night." },
    "This is a farewell.", "Goodbye.", "goodbye" },
  { { "Do you run on this machine?", "Where do you run?", "Do you run in the cloud?", "Are you on a server?", "Where are you?" },
    "This is about me. No tool is needed.", "I run on this machine, and my tools run in a sandbox.", "machine" },
  { { "Are you sure you are safe?", "Is it safe to let you run commands?", "Can you damage my files?", "What is the sandbox?", "How are your commands kept safe?" },
    "This is about the sandbox. No tool is needed.", "My commands run in a sandbox that sees the workspace and little else.", "sandbox" },
  { { "Write me a poem.", "Tell me a joke.", "Sing a song.", "What is the weather today?", "What do you think about {x}?", "Translate {x} into French.", "Who won the game yesterday?",
      "Tell me a story about {x}.", "What is the meaning of life?", "Book me a flight to {X}.", "Draw a picture of {x}.", "Call {X} on the phone.", "Write a haiku about {x}.", "Write a poem about {x}.", "Write an essay about {x}.", "What day is it today?", "What time is it?",
      "Write a song about {x}.", "Tell me something about {x}.", "What is the news?", "How is the weather in {X}?", "Do you like {x}?", "Send an email to {X}.", "Translate hello into German." },
    "This is not something I can do.", "I cannot do that. I can compute, work with files, and answer from documents.", "cannot" },
}

local function small_talk(r)
  local t = r:pick(talk)
  local x = r:word()
  return { ask = lib.fill(r:pick(t[1]), { x = x, X = lib.title(x) }), think = t[2], say = t[3], must = t[4] }
end

-- Small talk is a matter of words, so these few words are all the verifier can ask for.
local function talked(world, turn, part)
  if used_tool(world, turn) then return false, "a tool was called for small talk" end
  return world.answers[turn]:lower():find(part.must, 1, true) ~= nil, "the answer lacks '" .. part.must .. "'"
end

kind("talk", 11, function(r)
  local n, requests, parts = r:int(1, 3), {}, {}
  for i = 1, n do
    parts[i] = small_talk(r)
    requests[i] = parts[i].ask
  end
  return {
    requests = requests,
    solve = function(ctx) for _, p in ipairs(parts) do ctx.answer(p.think, p.say) end end,
    check = function(w)
      for i, p in ipairs(parts) do
        local ok, why = talked(w, i, p)
        if not ok then return false, why end
      end
      return true
    end,
  }
end)

-- A chain of arithmetic on the last answer.
kind("chain", 22, function(r)
  local a, b = r:number(1, 4), r:number(1, 3)
  local ops = {
    { "*", { "Multiply that by {n}.", "Now times {n}.", "And that times {n}?", "What is {n} times that?" }, function(x, n) return x * n end },
    { "+", { "Add {n} to that.", "Now add {n}.", "And plus {n}?", "What is that plus {n}?" }, function(x, n) return x + n end },
    { "-", { "Subtract {n} from that.", "Now take away {n}.", "And minus {n}?", "What is that minus {n}?" }, function(x, n) return x - n end },
    { "%", { "What is the remainder of that divided by {n}?", "And that modulo {n}?" }, function(x, n) return x % n end },
  }
  local first = r:pick(ops)
  local expr, value = a .. " " .. first[1] .. " " .. b, first[3](a, b)
  local requests, steps, values = { r:ask({ "What is {x}?", "Compute {x}.", "How much is {x}?", "Calculate {x}." }, { x = expr }) }, {}, { value }
  for i = 2, r:int(2, 4) do
    local op, n = r:pick(ops), r:number(1, 3)
    requests[i] = lib.fill(r:pick(op[2]), { n = n })
    steps[i] = { op[1], n }
    values[i] = op[3](values[i - 1], n)
  end
  return {
    requests = requests,
    solve = function(ctx)
      local v = python(ctx, "I need to compute " .. expr .. ". I will use python.", "print(" .. expr .. ")")
      ctx.answer("The result is " .. v .. ".", expr .. " = " .. v .. ".")
      for i = 2, #requests do
        local e = v .. " " .. steps[i][1] .. " " .. steps[i][2]
        v = python(ctx, "The last result is " .. v .. ". I need " .. e .. ".", "print(" .. e .. ")")
        ctx.answer("The result is " .. v .. ".", e .. " = " .. v .. ".")
      end
    end,
    check = function(w)
      for i, v in ipairs(values) do if not says(w.answers[i], v) then return false, "turn " .. i .. " is not " .. v end end
      return true
    end,
  }
end)

kind("counts", 20, function(r)
  local f, a, b = r:file(r:pick { "txt", "md", "log" }), r:fresh(), r:fresh()
  local lines, na, nb = {}, r:int(1, 9), r:int(1, 9)
  for _ = 1, na do lines[#lines + 1] = r:clean_sentence(b):gsub("%.?$", "") .. " " .. a .. "." end
  for _ = 1, nb do lines[#lines + 1] = r:clean_sentence(a):gsub("%.?$", "") .. " " .. b .. "." end
  r:shuffle(lines)
  local has_a, has_b = 0, 0
  for _, l in ipairs(lines) do
    if l:find(a, 1, true) then has_a = has_a + 1 end
    if l:find(b, 1, true) then has_b = has_b + 1 end
  end
  local last = r:pick {
    { "+", { "How many is that together?", "What is the sum of the two?", "And both together?" }, has_a + has_b, "Together that is {v}." },
    { "-", { "What is the difference of the two?", "How many more is the first than the second?" }, has_a - has_b, "The difference is {v}." },
  }
  local requests = { r:ask({ "How many lines in {f} contain the word {w}?", "Count the lines in {f} that contain {w}.", "How many lines of {f} mention {w}?" }, { f = f, w = a }),
    lib.fill(r:pick { "And {w}?", "And how many contain {w}?", "What about {w}?", "And the word {w}?", "Now count {w}." }, { w = b }) }
  if r:chance(60) then requests[3] = r:pick(last[2]) end
  return {
    requests = requests,
    files = { [f] = table.concat(lines, "\n") .. "\n" },
    solve = function(ctx)
      local v = {}
      for i, w in ipairs { a, b } do
        v[i] = lib.body(bash(ctx, ("I need to count lines with %s in %s. I will use grep."):format(w, f), ("grep -c '%s' %s"):format(w, f)))
        ctx.answer("The count is " .. v[i] .. ".", (v[i] == "1" and "1 line in %s contains %s." or v[i] .. " lines in %s contain %s."):format(f, w))
      end
      if not requests[3] then return end
      local e = v[1] .. " " .. last[1] .. " " .. v[2]
      local out = python(ctx, "The counts are " .. v[1] .. " and " .. v[2] .. ". I need " .. e .. ".", "print(" .. e .. ")")
      ctx.answer("The result is " .. out .. ".", lib.fill(last[4], { v = out }))
    end,
    check = function(w)
      if not says(w.answers[1], has_a) or not says(w.answers[2], has_b) then return false, "wrong count" end
      if not requests[3] then return true end
      return says(w.answers[3], last[3]) or says(w.answers[3], -last[3])
    end,
  }
end)

kind("found", 18, function(r)
  local w, files, home = r:fresh(), {}, nil
  local n = r:int(1, 9)
  for i = 1, r:int(2, 4) do
    local f = r:file(r:pick { "txt", "md", "log" })
    files[f] = table.concat(r:lines(i == 1 and n or r:int(1, 5), w, i == 1 and 1 or 0), "\n") .. "\n"
    home = home or f
  end
  local to = r:file(home:match("%.(%w+)$"))
  local forms = {
    { { "How many lines has it?", "How long is it in lines?", "Count its lines." }, "wc -l < {f}", "{f} has {v} lines.", function(world) return says(world.answers[2], n) end },
    { { "Rename it to {t}.", "Give it the name {t}.", "Now rename that file to {t}." }, "mv {f} {t}", "I renamed {f} to {t}.",
      function(world) return world.read(to) == files[home] and not world.read(home) end },
    { { "Delete it.", "Remove that file.", "Please delete it." }, "rm {f}", "I deleted {f}.", function(world) return not world.read(home) end },
    { { "Copy it to {t}.", "Make a copy of it named {t}." }, "cp {f} {t}", "I copied {f} to {t}.",
      function(world) return world.read(to) == files[home] and world.read(home) == files[home] end },
    { { "What is its first line?", "Show me its first line." }, "head -n 1 {f}", "The first line is: {v}",
      function(world) return world.answers[2]:find(files[home]:match("^[^\n]*"), 1, true) ~= nil end },
  }
  local k = r:pick(forms)
  local requests = { r:ask({ "Which file contains {w}?", "In which file does the word {w} occur?", "Find the file that mentions {w}." }, { w = w }), lib.fill(r:pick(k[1]), { t = to }) }
  return {
    requests = requests,
    files = files,
    solve = function(ctx)
      local f = lib.body(bash(ctx, "I need the file with " .. w .. ". I will use grep.", "grep -rl '" .. w .. "' .")):gsub("^%./", "")
      ctx.answer("It is in one file.", f .. " contains " .. w .. ".")
      local v = lib.body(bash(ctx, "The file is " .. f .. ".", lib.fill(k[2], { f = f, t = to })))
      ctx.answer(v == "" and "It is done." or "I have the result.", lib.fill(k[3], { f = f, t = to, v = v }))
    end,
    check = function(world)
      local ok = says(world.answers[1], home)
      if not ok then return false, "wrong file" end
      return k[4](world)
    end,
  }
end)

-- The old value stands only in the earlier call and its result.
kind("undo", 18, function(r)
  local f, keys, lines, sep = r:file(r:pick { "conf", "ini", "txt" }), {}, {}, r:pick { " = ", "=", ": " }
  for i = 1, r:int(1, 5) do
    keys[i] = r:fresh()
    lines[i] = keys[i] .. sep .. r:number(1, 5)
  end
  local k, v = r:int(1, #keys), r:number(1, 5)
  local text = table.concat(lines, "\n") .. "\n"
  local new = keys[k] .. sep .. v
  return {
    requests = { r:order({ "Set {k} to {v} in {f}.", "Change {k} in {f} to {v}.", "In {f}, set {k} to {v}." }, { k = keys[k], v = v, f = f }),
      r:pick { "Undo that.", "Set it back.", "Put the old value back.", "Please undo the change.", "Restore the old value." } },
    files = { [f] = text },
    solve = function(ctx)
      local out = bash(ctx, ("I will set %s to %s in %s."):format(keys[k], v, f), lib.set_command(keys[k], v, f))
      local old = lib.body(out):match("[=:]%s*(.*)$")
      ctx.answer("The old value was " .. old .. ".", keys[k] .. " is now " .. v .. " in " .. f .. ". It was " .. old .. ".")
      bash(ctx, ("It was %s. I will set %s to %s in %s."):format(old, keys[k], old, f), lib.set_command(keys[k], old, f))
      ctx.answer("The old value is back.", keys[k] .. " is " .. old .. " again in " .. f .. ".")
    end,
    check = function(w)
      -- The second turn's call showed the changed line, or some call of the first one did.
      local edited
      for _, c in ipairs(w.calls) do if c.result:find(new, 1, true) then edited = true end end
      return edited and w.read(f) == text, "the file is not as it was, or was never changed"
    end,
  }
end)

-- Something said earlier, and asked for later; no tool.
kind("remember", 9, function(r)
  local x = r:pick { r:name(), r:code(), tostring(r:number(2, 6)), r:fresh(), r:file() }
  local forms = {
    { { "My name is {x}.", "I am {x}.", "You can call me {x}." }, "The user gives a name.", "Hello, {x}.", { "What is my name?", "Who am I?", "Do you know my name?" }, "Your name is {x}." },
    { { "Remember the code {x}.", "The code is {x}. Remember it.", "Please keep the code {x} in mind." }, "I will keep it in mind.", "I will remember {x}.",
      { "What was the code?", "Which code did I give you?", "Tell me the code." }, "The code is {x}." },
    { { "My favorite word is {x}.", "The secret word is {x}." }, "I will keep it in mind.", "I will remember {x}.", { "What is the word?", "Which word did I tell you?", "What was my word?" }, "The word is {x}." },
  }
  local k = r:pick(forms)
  local requests, parts = { lib.fill(r:pick(k[1]), { x = x }) }, { { k[2], lib.fill(k[3], { x = x }) } }
  if r:chance(50) then
    local t = small_talk(r)
    requests[2], parts[2] = t.ask, { t.think, t.say }
  end
  requests[#requests + 1] = r:pick(k[4])
  parts[#parts + 1] = { "The user said " .. x .. ".", lib.fill(k[5], { x = x }) }
  return {
    requests = requests,
    solve = function(ctx) for _, p in ipairs(parts) do ctx.answer(p[1], p[2]) end end,
    check = function(w)
      for i = 1, #requests do if used_tool(w, i) then return false, "a tool was called for plain talk" end end
      return says(w.answers[#requests], x)
    end,
  }
end)

-- A question about a document, then one about "it".
kind("reading", 20, function(r)
  local w = docs.world(r, { n = r:int(1, 3) })
  local e = r:pick(w.places)
  r:shuffle(e.facts)
  local f, g = e.facts[1], e.facts[2]
  return {
    requests = { docs.question(r, e, f), docs.question(r, e, g, "it") },
    docs = w.docs,
    solve = function(ctx)
      docs.lookup(ctx, e, f)
      docs.again(ctx, e, g)
    end,
    check = function(world)
      local ok, why = docs.cited(world, 1, f.value)
      if not ok then return false, why end
      return docs.cited(world, 2, g.value)
    end,
  }
end)

kind("mixed", 10, function(r)
  local t = small_talk(r)
  local a, b = r:number(1, 4), r:number(1, 3)
  local expr = a .. r:pick { " * ", " + ", " - " } .. b
  local op = expr:match("[*+-]")
  local v = op == "*" and a * b or op == "+" and a + b or a - b
  local first = r:chance(50)
  local requests = { "What is " .. expr .. "?", t.ask }
  if first then requests = { t.ask, requests[1] } end
  return {
    requests = requests,
    solve = function(ctx)
      if first then ctx.answer(t.think, t.say) end
      local out = python(ctx, "I need to compute " .. expr .. ". I will use python.", "print(" .. expr .. ")")
      ctx.answer("The result is " .. out .. ".", expr .. " = " .. out .. ".")
      if not first then ctx.answer(t.think, t.say) end
    end,
    check = function(w)
      return talked(w, first and 1 or 2, t) and says(w.answers[first and 2 or 1], v)
    end,
  }
end)

return require("family").new({ name = "session", family = 4, about = "several turns, and plain talk" },
  { "bash", "python", "str_replace_editor", "search", "open", "find" }, kinds)
