-- files/env.lua - family 2: questions about the workspace and changes to it, through `bash`
-- and `str_replace_editor`. The verifier counts in the files it made, and reads the files that
-- should have changed; a missing file must be looked for, and reported if there is none.
local lib = require "lib"
local says = lib.says

local kinds = {}
local function kind(name, weight, make) kinds[#kinds + 1] = { name = name, weight = weight, make = make } end

local function bash(ctx, think, command) return ctx.call(think, "bash", { { "command", command } }) end
local function gone(text) return text:find("No such file", 1, true) or text:find("not exist", 1, true) end

-- Other files that stand about, so that `ls` has something to say.
local function crowd(r, files, n)
  for _ = 1, n do
    files[r:file()] = table.concat(r:lines(r:int(1, 4)), "\n") .. "\n"
  end
  return files
end

-- Where the file really is: mostly where the request says, else in a folder, else nowhere.
local function place(r, t, f, text)
  t.files = t.files or {}
  local k = r:int(1, 20)
  if k <= 2 then
    t.path = r:fresh() .. "/" .. f
  elseif k == 3 then
    t.absent = true
    crowd(r, t.files, r:int(1, 4))
    return
  else
    t.path = f
  end
  t.files[t.path] = text
end

local function names_of(files)
  local t = {}
  for p in pairs(files) do if not p:find("/") then t[#t + 1] = p end end
  table.sort(t)
  return t
end

-- Runs `use(path)` on the file; looks for it when it is not there. nil: there is none.
local function with_file(ctx, f, first, use)
  local out = use(first, f)
  if not gone(out) then return out, f end
  local found = lib.body(bash(ctx, f .. " is not here. I will look for it.", "find . -name '" .. f .. "'"))
  if found == "" then
    local list = lib.body(bash(ctx, "There is no " .. f .. ". I will list the files.", "ls"))
    if list == "" then
      ctx.answer("The folder is empty.", "There is no file " .. f .. " here; the folder is empty.")
    else
      ctx.answer("The file does not exist.", "There is no file " .. f .. " here. I see: " .. list:gsub("\n", ", ") .. ".")
    end
    return nil
  end
  local path = found:match("^%./([^\n]*)")
  return use("It is at " .. path .. ".", path), path
end

local function absent_ok(t, w, f)
  local a = w.answers[1]
  return a:find("no file " .. f, 1, true) ~= nil
end

local function count_in(lines, word)
  local n = 0
  for _, l in ipairs(lines) do if l:find(word, 1, true) then n = n + 1 end end
  return n
end

kind("grep-count", 22, function(r)
  local f, w = r:file(r:pick { "txt", "txt", "txt", "md", "log" }), r:fresh()
  local n = r:int(3, 24)
  local lines = r:lines(n, w, r:chance(8) and 0 or r:int(1, math.min(n, 12)))
  local t = {
    requests = { r:ask({ "How many lines in {f} contain the word {w}?", "How many lines of {f} contain {w}?", "Count the lines in {f} that contain {w}.",
      "In {f}, how many lines mention {w}?", "How many lines in {f} have the word {w}?", "How often does the word {w} appear in {f}, counted in lines?",
      "How many lines with {w} are in {f}?", "How many lines mention {w} in {f}?", "How many lines contain {w} in {f}?",
      "How many lines of {f} have {w} in them?", "How often is {w} mentioned in {f}?", "Count how many lines of {f} mention the {w}.", "How many lines in {f} contain '{w}'?", "How many lines of {f} contain the word \"{w}\"?", "In how many lines of {f} does {w} occur?", "Count lines with the word {w} in the file {f}.",
      more = { "How many lines mention {w} in {f}?", "number of lines with {w} in {f}", "How many lines of {f} talk about {w}?", "count {w} in {f}", "How many times is {w} in {f}, in lines?", "How many lines in {f} say {w}?" } }, { f = f, w = w }) },
  }
  place(r, t, f, table.concat(lines, "\n") .. "\n")
  function t.solve(ctx)
    local out, path = with_file(ctx, f, ("I need to count lines with %s in %s. I will use grep."):format(w, f), function(think, p)
      return bash(ctx, think, ("grep -c '%s' %s"):format(w, p))
    end)
    if not out then return end
    local v = lib.body(out)
    ctx.answer("The count is " .. v .. ".", (v == "1" and "1 line in %s contains %s." or v .. " lines in %s contain %s."):format(path, w))
  end
  function t.check(world)
    if t.absent then return absent_ok(t, world, f) end
    return says(world.answers[1], count_in(lines, w))
  end
  return t
end)

local wc = {
  { "lines", "-l", { "How many lines has {f}?", "How many lines are in {f}?", "Count the lines of {f}.", "How long is {f} in lines?", "How many lines does {f} have?", "Count the lines in {f}." } },
  { "words", "-w", { "How many words has {f}?", "How many words are in {f}?", "Count the words of {f}.", "Count the words in {f}.", "How many words does {f} have?", "How many words does the file {f} contain?" } },
  { "bytes", "-c", { "How many bytes has {f}?", "How big is {f} in bytes?", "What is the size of {f} in bytes?", "How many bytes does {f} have?" } },
}
kind("wc", 14, function(r)
  local f, what = r:file(), r:pick(wc)
  local lines = r:lines(r:int(1, 30))
  local text = table.concat(lines, "\n") .. "\n"
  local t = { requests = { r:ask(what[3], { f = f }) } }
  place(r, t, f, text)
  function t.solve(ctx)
    local out, path = with_file(ctx, f, ("I need to count the %s of %s. I will use wc."):format(what[1], f), function(think, p)
      return bash(ctx, think, ("wc %s < %s"):format(what[2], p))
    end)
    if not out then return end
    local v = lib.body(out)
    ctx.answer("The count is " .. v .. ".", ("%s has %s %s."):format(path, v, what[1]))
  end
  function t.check(world)
    if t.absent then return absent_ok(t, world, f) end
    local n = what[1] == "lines" and #lines or what[1] == "bytes" and #text or select(2, text:gsub("%S+", ""))
    return says(world.answers[1], n)
  end
  return t
end)

kind("where", 8, function(r)
  local f, dir = r:file(), r:fresh()
  if r:chance(50) then dir = dir .. "/" .. r:fresh() end
  local absent = r:chance(12)
  local files = crowd(r, {}, r:int(0, 3))
  if not absent then files[dir .. "/" .. f] = r:sentence() .. "\n" end
  return {
    requests = { r:ask({ "Where is the file {f}?", "In which folder is {f}?", "Find {f}.", "Which directory holds {f}?", "Can you find the file {f}?", "Where is {f}?", "Where can I find {f}?" }, { f = f }) },
    files = files,
    solve = function(ctx)
      local out = lib.body(bash(ctx, "I need to find " .. f .. ". I will use find.", "find . -name '" .. f .. "'"))
      if out == "" then
        ctx.answer("Nothing was found.", "There is no file " .. f .. " here.")
      else
        local d = out:match("^%./(.*)/[^/]*$")
        ctx.answer("It was found.", f .. " is in the folder " .. d .. ".")
      end
    end,
    check = function(w)
      if absent then return absent_ok(nil, w, f) end
      return says(w.answers[1], dir)
    end,
  }
end)

kind("which", 8, function(r)
  local w, files, home = r:fresh(), {}, nil
  for i = 1, r:int(2, 5) do
    local f = r:chance(70) and r:file() or r:fresh() .. "/" .. r:file()
    files[f] = table.concat(r:lines(r:int(1, 5), w, i == 1 and 1 or 0), "\n") .. "\n"
    home = home or f
  end
  local none = r:chance(10)
  if none then files[home] = "empty\n" end
  return {
    requests = { r:ask({ "Which file contains {w}?", "In which file does the word {w} occur?", "Find the file that mentions {w}.", "Which of the files has {w} in it?", "Which file mentions {w}?", "Which file mentions the {w}?", "Which file has the word {w}?",
      "Which file talks about {w}?", "In which file is {w}?", "Search the files for {w}.",
      more = { "Which file mentions the word {w}?", "find {w} in the files", "Which file says {w}?", "where is {w} mentioned?", "Is there a file with {w} in it?", "grep for {w}" } }, { w = w }) },
    files = files,
    solve = function(ctx)
      local out = lib.body(bash(ctx, "I need the file with " .. w .. ". I will use grep.", "grep -rl '" .. w .. "' ."))
      if out == "" then
        ctx.answer("No file has it.", "No file contains " .. w .. ".")
      else
        ctx.answer("It is in one file.", out:gsub("^%./", "") .. " contains " .. w .. ".")
      end
    end,
    check = function(world)
      if none then return world.answers[1]:match("^No file") ~= nil end
      return says(world.answers[1], home)
    end,
  }
end)

kind("size", 8, function(r)
  local files, sizes, largest, smallest = {}, {}, nil, nil
  for _ = 1, r:int(2, 6) do
    local f, text = r:file(), nil
    repeat text = table.concat(r:lines(r:int(1, 9)), "\n") .. "\n" until not sizes[#text]
    sizes[#text] = true
    files[f] = text
    if not largest or #text > #files[largest] then largest = f end
    if not smallest or #text < #files[smallest] then smallest = f end
  end
  local big = r:chance(60)
  return {
    requests = { r:ask(big and { "Which file is the largest?", "What is the biggest file here?", "Find the largest file.", "Which file takes the most space?", "Which is the biggest file?", "What is the largest file?" }
      or { "Which file is the smallest?", "What is the smallest file here?", "Find the smallest file.", "What is the smallest file?" }, {}) },
    files = files,
    solve = function(ctx)
      local word = big and "largest" or "smallest"
      local out = lib.body(bash(ctx, "I need the " .. word .. " file. I will sort by size.", "ls -S | " .. (big and "head" or "tail") .. " -n 1"))
      ctx.answer("It is " .. out .. ".", "The " .. word .. " file is " .. out .. ".")
    end,
    check = function(w) return says(w.answers[1], big and largest or smallest) end,
  }
end)

kind("how-many-files", 6, function(r)
  local ext, files, n, hits = r:pick { "txt", "md", "log", "csv", "conf" }, {}, r:int(1, 9), 0
  for _ = 1, n do
    local f = r:chance(50) and r:file(ext) or r:file()
    if r:chance(30) then f = r:fresh() .. "/" .. f end
    files[f] = r:sentence() .. "\n"
    if f:sub(-#ext - 1) == "." .. ext then hits = hits + 1 end
  end
  local all = r:chance(40)
  return {
    requests = { r:ask(all and { "How many files are here?", "How many files are in the workspace?", "Count all files.", "How many files are there?", "How many files do we have?", "Count the files." }
      or { "How many {e} files are here?", "How many files end in .{e}?", "Count the .{e} files.", "How many {e} files are there?" }, { e = ext }) },
    files = files,
    solve = function(ctx)
      local v = lib.body(all and bash(ctx, "I need to count all files. I will use find.", "find . -type f | wc -l")
        or bash(ctx, "I need to count the " .. ext .. " files. I will use find.", "find . -name '*." .. ext .. "' | wc -l"))
      ctx.answer("The count is " .. v .. ".", all and "There are " .. v .. " files." or "There are " .. v .. " " .. ext .. " files.")
    end,
    check = function(w) return says(w.answers[1], all and n or hits) end,
  }
end)

kind("list", 4, function(r)
  local dir, files, names = r:fresh(), {}, {}
  for i = 1, r:int(1, 4) do
    names[i] = r:file()
    files[dir .. "/" .. names[i]] = r:sentence() .. "\n"
  end
  return {
    requests = { r:ask({ "What is in the folder {d}?", "Which files are in {d}?", "List the files in {d}.", "Show me the contents of the directory {d}." }, { d = dir }) },
    files = files,
    solve = function(ctx)
      local out = lib.body(bash(ctx, "I need to list " .. dir .. ".", "ls " .. dir))
      ctx.answer("I have the list.", dir .. " holds: " .. out:gsub("\n", ", ") .. ".")
    end,
    check = function(w)
      for _, f in ipairs(names) do if not says(w.answers[1], f) then return false end end
      return true
    end,
  }
end)

kind("here", 5, function(r)
  local files, names = {}, {}
  for i = 1, r:int(1, 5) do
    names[i] = r:file()
    files[names[i]] = r:sentence() .. "\n"
  end
  return {
    requests = { r:ask({ "Which files are here?", "List the files.", "What is in the workspace?", "What files do you see?", "Show me the files here.", "What is in this folder?",
      "List all files in the workspace.", "What files do we have here?", "What files are there?", "Which files do we have?", "List files.", "ls", "Show the files.",
      "What files are in this folder?", "What files are here?", "Which files are there?", "Show me all the files." }, {}) },
    files = files,
    solve = function(ctx)
      local out = lib.body(bash(ctx, "I need to list the files.", "ls"))
      ctx.answer("I have the list.", "I see: " .. out:gsub("\n", ", ") .. ".")
    end,
    check = function(w)
      for _, f in ipairs(names) do if not says(w.answers[1], f) then return false end end
      return true
    end,
  }
end)

kind("show", 6, function(r)
  local f, lines = r:file(r:pick { "txt", "md", "log", "csv" }), nil
  if f:match("csv$") then
    lines = { r:pick { "name", "item", "city", "team" } .. "," .. r:fresh() }
    for i = 2, r:int(2, 8) do lines[i] = r:fresh() .. "," .. r:number(1, 3) end
  else
    lines = r:lines(r:chance(70) and r:int(1, 3) or r:int(4, 6))
  end
  local t = { requests = { r:ask({ "What does {f} say?", "Show me {f}.", "What is in {f}?", "Print {f}.", "Read {f}.", "Show the contents of {f}.", "Show {f}.", "cat {f}", "What are the contents of {f}?", "Open {f}.",
    "What is written in {f}?", "Show me what is in {f}.", "Show me the file {f}.", "Can you show me {f}?", "What does the file {f} say?" }, { f = f }) } }
  place(r, t, f, table.concat(lines, "\n") .. "\n")
  function t.solve(ctx)
    local out, path = with_file(ctx, f, "I need to read " .. f .. ".", function(think, p) return bash(ctx, think, "cat " .. p) end)
    if not out then return end
    ctx.answer("I have the text.", path .. " says:\n" .. lib.body(out))
  end
  function t.check(w)
    if t.absent then return absent_ok(t, w, f) end
    for _, l in ipairs(lines) do if not w.answers[1]:find(l, 1, true) then return false end end
    return true
  end
  return t
end)

kind("line", 8, function(r)
  local f = r:file(r:pick { "txt", "md", "log" })
  local lines = r:lines(r:int(2, 25))
  local n, command, what = r:int(1, #lines), nil, nil
  local k = r:int(1, 4)
  if k == 1 then n, command, what = 1, "head -n 1 {f}", "the first line" end
  if k == 2 then n, command, what = #lines, "tail -n 1 {f}", "the last line" end
  if k >= 3 then command, what = "sed -n " .. n .. "p {f}", "line " .. n end
  local t = { requests = { r:ask({ "What is {x} of {f}?", "Show me {x} of {f}.", "What does {x} of {f} say?", "Read {x} in {f}.", "What is {x} in {f}?", "Print {x} of {f}." }, { x = what, f = f }) } }
  place(r, t, f, table.concat(lines, "\n") .. "\n")
  function t.solve(ctx)
    local out = with_file(ctx, f, ("I need %s of %s."):format(what, f), function(think, p)
      return bash(ctx, think, lib.fill(command, { f = p }))
    end)
    if not out then return end
    ctx.answer("I have the line.", lib.title(what) .. " is: " .. lib.body(out))
  end
  function t.check(w)
    if t.absent then return absent_ok(t, w, f) end
    return w.answers[1]:find(lines[n], 1, true) ~= nil
  end
  return t
end)

kind("on-line", 6, function(r)
  local f, w = r:file(r:pick { "txt", "md", "log" }), r:fresh()
  local lines, at = r:lines(r:int(2, 20), w, 1), nil
  for i, l in ipairs(lines) do if l:find(w, 1, true) then at = i end end
  return {
    requests = { r:ask({ "On which line of {f} is {w}?", "Which line of {f} contains {w}?", "What is the line number of {w} in {f}?", "Which line in {f} mentions {w}?", "In which line of {f} is {w}?" }, { f = f, w = w }) },
    files = { [f] = table.concat(lines, "\n") .. "\n" },
    solve = function(ctx)
      local out = bash(ctx, ("I need the line of %s in %s. I will use grep."):format(w, f), ("grep -n '%s' %s"):format(w, f))
      local n = out:match("^(%d+):")
      ctx.answer("It is line " .. n .. ".", w .. " is on line " .. n .. " of " .. f .. ".")
    end,
    check = function(world) return says(world.answers[1], at) end,
  }
end)

-- key = value files
local function settings(r, n)
  local sep = r:pick { " = ", "=", ": " }
  local keys, values, lines = {}, {}, {}
  for i = 1, n do
    keys[i] = r:chance(75) and r:fresh() or r:fresh() .. "_" .. r:fresh()
    local k = r:int(1, 4)
    values[i] = k <= 2 and tostring(r:number(1, 5)) or k == 3 and r:word() or r:code()
    lines[i] = keys[i] .. sep .. values[i]
  end
  return keys, values, lines, sep
end

kind("setting", 12, function(r)
  local f = r:file(r:pick { "conf", "ini", "yaml", "txt" })
  local keys, values, lines = settings(r, r:int(1, 12))
  local k = r:int(1, #keys)
  local t = { requests = { r:ask({ "What is the value of {k} in {f}?", "What is {k} set to in {f}?", "Look up {k} in {f}.", "In {f}, what is {k}?",
    "Tell me the {k} from {f}.", "What is {k} in {f}?", "Which value has {k} in {f}?", "What value does {k} have in {f}?",
      more = { "What does {f} say {k} is?", "show me {k} in {f}", "Get {k} from {f}.", "What's {k} in {f}?", "Find the value of {k} in {f}." } }, { k = keys[k], f = f }) } }
  place(r, t, f, table.concat(lines, "\n") .. "\n")
  function t.solve(ctx)
    local out = with_file(ctx, f, ("I need %s from %s. I will use grep."):format(keys[k], f), function(think, p)
      return bash(ctx, think, ("grep '^%s' %s"):format(keys[k], p))
    end)
    if not out then return end
    local v = lib.body(out):match("[=:]%s*(.*)$")
    ctx.answer("The value is " .. v .. ".", keys[k] .. " is " .. v .. ".")
  end
  function t.check(w)
    if t.absent then return absent_ok(t, w, f) end
    return says(w.answers[1], values[k])
  end
  return t
end)

local function edit(ctx, think, path, old, new)
  return ctx.call(think, "str_replace_editor", { { "command", "str_replace" }, { "path", path }, { "old_str", old }, { "new_str", new } })
end

kind("set", 20, function(r)
  local f = r:file(r:pick { "conf", "ini", "yaml", "txt" })
  local keys, values, lines, sep = settings(r, r:int(1, 10))
  local k, v = r:int(1, #keys), r:chance(65) and tostring(r:number(1, 5)) or r:fresh()
  local t = { requests = { r:order({ "Set {k} to {v} in {f}.", "Change {k} in {f} to {v}.", "In {f}, set {k} to {v}.", "Edit {f} so that {k} is {v}.",
    "Change the value of {k} to {v} in the file {f}.", "Make {k} equal to {v} in {f}.", "Set the value of {k} to {v} in {f}.", "In {f}, change the value of {k} to {v}.",
      more = { "Change {k} to {v} in {f}, it is a setting.", "Update {k} in {f} to {v}.", "Give {k} the value {v} in {f}.", "The {k} in {f} should be {v}.", "Put {k} to {v} in {f}." } }, { k = keys[k], v = v, f = f }) } }
  place(r, t, f, table.concat(lines, "\n") .. "\n")
  function t.solve(ctx)
    local out, path = with_file(ctx, f, ("I will set %s to %s in %s."):format(keys[k], v, f), function(think, p)
      return bash(ctx, think, lib.set_command(keys[k], v, p))
    end)
    if not out then return end
    local old = lib.body(out):match("[=:]%s*(.*)$")
    ctx.answer("The old value was " .. old .. ".", keys[k] .. " is now " .. v .. " in " .. path .. ". It was " .. old .. ".")
  end
  function t.check(w)
    if t.absent then return absent_ok(t, w, f) end
    local want = {}
    for i, l in ipairs(lines) do want[i] = i == k and keys[k] .. sep .. v or l end
    return w.read(t.path) == table.concat(want, "\n") .. "\n", t.path .. " does not have the new value"
  end
  return t
end)

kind("replace", 12, function(r)
  local f, a, b = r:file(r:pick { "txt", "md", "list" }), r:fresh(), r:fresh()
  local many, none = r:chance(35), r:chance(10)
  local lines = r:lines(r:int(1, 7) + (many and 1 or 0), a, none and 0 or many and 2 or 1)
  local text = table.concat(lines, "\n") .. "\n"
  local t = {
    requests = { r:order({ "Replace {a} with {b} in {f}.", "In {f}, change {a} to {b}.", "In the file {f} replace the word {a} by {b}.", "Change the word {a} in {f} to {b}.", "Change {a} to {b} in {f}.",
      "Replace the word {a} with {b} in {f}.", "Replace every {a} with {b} in {f}.", "Replace all {a} in {f} with {b}.", "In {f}, replace {a} with {b}.", "In {f}, write {b} instead of {a}.",
      more = { "Change every {a} to {b} in {f}.", "Change every {a} in {f} to {b}.", "Swap {a} for {b} in {f}.", "Substitute {b} for {a} in {f}.", "Replace the word {a} by {b} in {f}.", "replace {a} by {b} in {f}", "Use {b} instead of {a} in {f}.", "change all {a} into {b} in {f}" } },
      { a = a, b = b, f = f }) },
    files = { [f] = text },
  }
  function t.solve(ctx)
    local n = lib.body(bash(ctx, ("I need to see how often %s is in %s."):format(a, f), ("grep -o '%s' %s | wc -l"):format(a, f)))
    if n == "0" then
      ctx.answer("It does not occur.", a .. " does not occur in " .. f .. "; nothing was changed.")
      return
    elseif n == "1" then
      edit(ctx, "It occurs once. I will edit it.", f, a, b)
    else
      bash(ctx, "It occurs " .. n .. " times. I will use sed.", ("sed -i 's/%s/%s/g' %s"):format(a, b, f))
    end
    ctx.answer("The edit is done.", "I replaced " .. a .. " with " .. b .. " in " .. f .. ".")
  end
  function t.check(w)
    return w.read(f) == text:gsub(a, b) and (not none or #w.calls > 0 and w.answers[1]:find("not occur", 1, true) ~= nil)
  end
  return t
end)

kind("create", 8, function(r)
  local f = r:file(r:pick { "txt", "md" })
  if r:chance(25) then f = r:fresh() .. "/" .. f end
  local text = r:chance(50) and r:clean_sentence() or r:chance(50) and r:word() .. " " .. r:word() .. " " .. r:number(1, 4)
    or lib.title(r:fresh()) .. " " .. r:fresh() .. (r:chance(40) and " " .. r:word() or "")
  return {
    requests = { r:order({ "Create a file {f} with the text: {s}", "Write a new file {f} that says: {s}", "Make a file named {f} containing: {s}", "Write this to {f}: {s}",
      "Create the file {f} with the content: {s}", "Make a new file {f} with this text: {s}", "Create {f} with the text: {s}", "Create {f} with the text {s}", "Create {f} containing {s}",
      "Create a file called {f} with the text \"{s}\"", "Create {f} with the text '{s}'", "Save '{s}' in {f}", "Write \"{s}\" to {f}", "Make a file {f} that says {s}",
      more = { "Create {f} saying '{s}'", "Make {f} with the text {s}", "Put the text {s} in a new file {f}", "create {f} with {s} in it", "Write {s} into {f}", "New file {f}: {s}" } },
      { f = f, s = text }) },
    solve = function(ctx)
      ctx.call("I will create " .. f .. ".", "str_replace_editor", { { "command", "create" }, { "path", f }, { "file_text", text .. "\n" } })
      ctx.answer("The file is written.", "I created " .. f .. ".")
    end,
    check = function(w) return lib.trim(w.read(f) or "") == lib.trim(text) end,
  }
end)

kind("append", 6, function(r)
  local f, text = r:file(r:pick { "txt", "md", "list", "log" }), r:word() .. " " .. r:word() .. " " .. r:number(1, 4)
  if r:chance(40) then text = lib.title(r:fresh()) .. " " .. r:fresh() .. (r:chance(50) and " " .. r:word() or "") end
  local old = table.concat(r:lines(r:int(1, 5)), "\n") .. "\n"
  return {
    requests = { r:order({ "Append the line {s} to {f}.", "Add the line {s} at the end of {f}.", "Add a last line to {f}: {s}", "Put {s} on a new line at the end of {f}.", "Add the line '{s}' to {f}.", "Add a line saying '{s}' to {f}.", "Append '{s}' to {f}.",
      "Add \"{s}\" to the end of {f}.", "Add the line {s} to {f}.", "Append {s} to {f}.",
      more = { "Add {s} to {f}.", "Add '{s}' to {f}.", "Add a line to {f} saying {s}.", "Write {s} at the end of {f}.", "Put '{s}' at the end of {f}.", "Append to {f}: {s}", "add a line with {s} to {f}" } },
      { f = f, s = text }):gsub("%.$", "") .. "." },
    files = { [f] = old },
    solve = function(ctx)
      bash(ctx, "I need to add a line to " .. f .. ".", ("echo '%s' >> %s"):format(text, f))
      ctx.answer("The line is added.", "I added the line to " .. f .. ".")
    end,
    check = function(w) return w.read(f) == old .. text .. "\n" end,
  }
end)

kind("insert", 4, function(r)
  local f, text = r:file(r:pick { "txt", "md", "list" }), r:word() .. " " .. r:word() .. " " .. r:number(1, 3)
  local lines = r:lines(r:int(2, 7))
  local n = r:int(1, #lines)
  return {
    requests = { r:order({ "Insert the line {s} after line {n} of {f}.", "After line {n} in {f}, insert the line {s}." }, { f = f, s = text, n = n }):gsub("%.$", "") .. "." },
    files = { [f] = table.concat(lines, "\n") .. "\n" },
    solve = function(ctx)
      ctx.call("I will insert a line in " .. f .. ".", "str_replace_editor",
        { { "command", "insert" }, { "path", f }, { "insert_line", n }, { "new_str", text } })
      ctx.answer("The line is inserted.", "I inserted the line after line " .. n .. " of " .. f .. ".")
    end,
    check = function(w)
      table.insert(lines, n + 1, text)
      local want = table.concat(lines, "\n") .. "\n"
      table.remove(lines, n + 1)
      return w.read(f) == want
    end,
  }
end)

kind("move", 10, function(r)
  local a, dir = r:file(), r:fresh()
  local b, text = r:file(a:match("%.(%w+)$")), r:sentence() .. "\n"
  local forms = {
    { { "Rename {a} to {b}.", "Give {a} the new name {b}.", "Change the name of {a} to {b}.", "Rename the file {a} to {b}." }, "mv {a} {b}", "I renamed {a} to {b}.",
      function(w) return w.read(b) == text and not w.read(a) end },
    { { "Copy {a} to {b}.", "Make a copy of {a} named {b}.", "Duplicate {a} as {b}.", "Copy the file {a} to {b}.", "Make a copy of {a} called {b}." }, "cp {a} {b}", "I copied {a} to {b}.",
      function(w) return w.read(b) == text and w.read(a) == text end },
    { { "Delete {a}.", "Remove the file {a}.", "Please delete the file {a}.", "Delete the file {a}.", "Remove {a}." }, "rm {a}", "I deleted {a}.",
      function(w) return not w.read(a) end },
    { { "Move {a} into the folder {d}.", "Put {a} in a new folder {d}.", "Make the folder {d} and move {a} into it.", "Move {a} to the folder {d}.", "Put {a} into a folder named {d}." }, "mkdir -p {d} && mv {a} {d}/", "I moved {a} to {d}.",
      function(w) return w.read(dir .. "/" .. a) == text and not w.read(a) end },
  }
  local k, v = r:pick(forms), { a = a, b = b, d = dir }
  local missing = r:chance(10)
  local files = crowd(r, {}, r:int(0, 2))
  if not missing then files[a] = text end
  return {
    requests = { r:order(k[1], v) },
    files = files,
    solve = function(ctx)
      local out = bash(ctx, "I will use " .. k[2]:match("^%w+") .. ".", lib.fill(k[2], v))
      if gone(out) then
        ctx.answer("The file does not exist.", "There is no file " .. a .. " here.")
      else
        ctx.answer("It is done.", lib.fill(k[3], v))
      end
    end,
    check = function(w)
      if missing then return absent_ok(nil, w, a) end
      return k[4](w)
    end,
  }
end)

kind("csv", 14, function(r)
  local key = r:pick { "name", "item", "city", "team" }
  local col, f = lib.other(r, key), r:file("csv")
  local rows, lines, used = {}, { key .. "," .. col }, {}
  for i = 1, r:int(2, 16) do
    local v
    repeat v = r:number(1, 3) until not used[v]
    used[v] = true
    rows[i] = { lib.other(r, key), v }
    lines[i + 1] = rows[i][1] .. "," .. v
  end
  local best, worst, one = rows[1], rows[1], r:pick(rows)
  for _, row in ipairs(rows) do
    if row[2] > best[2] then best = row end
    if row[2] < worst[2] then worst = row end
  end
  local sorted = "tail -n +2 {f} | sort -t, -k2 -n | %s -n 1"
  local forms = {
    { { "What is the {c} of {o} in {f}?", "In {f}, what {c} has {o}?", "Look up the {c} of {o} in {f}.", "What is {o}'s {c} in {f}?", "Which {c} has {o} in {f}?", "What {c} does {o} have in {f}?",
      more = { "what is {o}'s {c}? It is in {f}", "{c} of {o} in {f}?", "Tell me the {c} of {o} from {f}.", "How much {c} has {o} in {f}?" } }, "the {c} of {o}", "grep '^{o},' {f}",
      "{a} has the {c} {b}.", one[2] },
    { { "Who has the highest {c} in {f}?", "Which {k} has the highest {c} in {f}?", "Find the {k} with the most {c} in {f}.", "Who has the most {c} in {f}?", "Which {k} has the most {c} in {f}?" }, "the highest {c}",
      sorted:format("tail"), "{a} has the highest {c}, {b}.", best[1] },
    { { "Who has the lowest {c} in {f}?", "Which {k} has the lowest {c} in {f}?", "Who has the least {c} in {f}?", "Which {k} has the least {c} in {f}?" }, "the lowest {c}", sorted:format("head"),
      "{a} has the lowest {c}, {b}.", worst[1] },
  }
  local k, v = r:pick(forms), { c = col, f = f, o = one[1], k = key }
  return {
    requests = { r:ask(k[1], v) },
    files = { [f] = table.concat(lines, "\n") .. "\n" },
    solve = function(ctx)
      local command = k[3]:gsub("{(%w+)}", v)
      local out = lib.body(bash(ctx, lib.fill("I need " .. k[2] .. " in {f}.", v), command))
      v.a, v.b = out:match("^([^,]*),([^,]*)$")
      ctx.answer("The result is " .. out .. ".", lib.fill(k[4], v))
    end,
    check = function(w) return says(w.answers[1], k[5]) end,
  }
end)

-- A long list, of which one line is wanted: reading it all and finding the line again is the
-- harder way.
kind("read", 12, function(r)
  local f, lines, keys, values, size = r:file(r:pick { "txt", "list", "md", "dat" }), {}, {}, {}, 0
  local sep = r:pick { ": ", " ", " - ", " has " }
  local n = r:chance(50) and r:int(3, 12) or r:int(20, 60)
  for i = 1, n do
    keys[i], values[i] = r:fresh(), r:chance(70) and tostring(r:number(1, 5)) or r:word()
    lines[i] = keys[i] .. sep .. values[i]
    size = size + #lines[i] + 1
    if size > 1100 then
      n = i
      break
    end
  end
  local k = r:int(1, n)
  local t = { requests = { r:ask({ "Read {f} and tell me the value for {k}.", "Show me {f}. What does it say about {k}?", "Read the file {f}: what stands with {k}?",
    "Open {f} and find the entry {k}.",
      more = { "Look in {f} for {k}.", "What does {f} say about {k}?", "What stands next to {k} in {f}?", "Which value stands with {k} in {f}?" } }, { f = f, k = keys[k] }) } }
  place(r, t, f, table.concat(lines, "\n") .. "\n")
  function t.solve(ctx)
    local out = with_file(ctx, f, ("I need %s from %s. I will use grep."):format(keys[k], f), function(think, p)
      return bash(ctx, think, ("grep '^%s' %s"):format(keys[k], p))
    end)
    if not out then return end
    ctx.answer("The line is " .. lib.body(out) .. ".", "The value for " .. keys[k] .. " is " .. values[k] .. ".")
  end
  function t.check(w)
    if t.absent then return absent_ok(t, w, f) end
    return says(w.answers[1], values[k])
  end
  return t
end)

kind("same", 4, function(r)
  local a, b = r:file("txt"), r:file("txt")
  local lines = r:lines(r:int(1, 5))
  local same = r:chance(50)
  local text = table.concat(lines, "\n") .. "\n"
  local other = text
  if not same then other = text .. r:sentence() .. "\n" end
  return {
    requests = { r:ask({ "Are {a} and {b} the same?", "Do {a} and {b} have the same contents?", "Is {a} identical to {b}?", "Is {a} the same as {b}?", "Compare {a} and {b}: are they the same?" }, { a = a, b = b }) },
    files = { [a] = text, [b] = other },
    solve = function(ctx)
      local out = bash(ctx, ("I need to compare %s and %s. I will use diff."):format(a, b), ("diff -q %s %s"):format(a, b))
      if lib.body(out) == "" then
        ctx.answer("There is no difference.", ("Yes, %s and %s are the same."):format(a, b))
      else
        ctx.answer("They differ.", ("No, %s and %s differ."):format(a, b))
      end
    end,
    check = function(w) return w.answers[1]:match(same and "^Yes" or "^No") ~= nil end,
  }
end)

kind("distinct", 3, function(r)
  local f, lines, base = r:file(r:pick { "txt", "list" }), {}, {}
  for i = 1, r:int(1, 5) do base[i] = r:fresh() end
  for i = 1, #base do lines[i] = base[i] end
  for _ = 1, r:int(1, 8) do lines[#lines + 1] = r:pick(base) end
  r:shuffle(lines)
  return {
    requests = { r:ask({ "How many different lines has {f}?", "How many distinct lines are in {f}?", "Count the unique lines of {f}." }, { f = f }) },
    files = { [f] = table.concat(lines, "\n") .. "\n" },
    solve = function(ctx)
      local v = lib.body(bash(ctx, "I need the number of distinct lines. I will use sort.", "sort -u " .. f .. " | wc -l"))
      ctx.answer("The count is " .. v .. ".", f .. " has " .. v .. " different lines.")
    end,
    check = function(w) return says(w.answers[1], #base) end,
  }
end)

kind("script", 4, function(r)
  local f, n, s = r:file("sh"), r:int(0, 9), r:word()
  return {
    requests = { r:ask({ "Run {f} and tell me its exit code.", "What exit code does {f} give?", "Run the script {f}. What is the exit code?" }, { f = f }) },
    files = { [f] = "echo " .. s .. "\nexit " .. n .. "\n" },
    solve = function(ctx)
      local out = bash(ctx, "I will run " .. f .. ".", "sh " .. f)
      local v = out:match("%[exit code: (%d+)%]")
      ctx.answer("The exit code is " .. v .. ".", f .. " ends with exit code " .. v .. ".")
    end,
    check = function(w) return says(w.answers[1], n) end,
  }
end)

-- Two steps deep and more: the value of one file goes into another.
kind("carry", 16, function(r)
  local keys, values, lines, sep = settings(r, r:int(1, 5))
  local k = r:int(1, #keys)
  local old = tostring(r:number(1, 5))
  local a, b = r:file("conf"), r:file("conf")
  local other = r:fresh() .. sep .. r:number(1, 3)
  return {
    requests = { r:order({ "Copy the value of {k} from {a} to {b}.", "Take {k} from {a} and set it in {b}.", "Set {k} in {b} to the value it has in {a}." },
      { k = keys[k], a = a, b = b }) },
    files = { [a] = table.concat(lines, "\n") .. "\n", [b] = other .. "\n" .. keys[k] .. sep .. old .. "\n" },
    solve = function(ctx)
      local from = lib.body(bash(ctx, ("I need %s from %s."):format(keys[k], a), ("grep '^%s' %s"):format(keys[k], a)))
      local v = from:match("[=:]%s*(.*)$")
      bash(ctx, ("The value is %s. I will set %s to %s in %s."):format(v, keys[k], v, b), lib.set_command(keys[k], v, b))
      ctx.answer("The edit is done.", keys[k] .. " is now " .. v .. " in " .. b .. ".")
    end,
    check = function(w) return w.read(b) == other .. "\n" .. lines[k] .. "\n" end,
  }
end)

kind("holder", 10, function(r)
  local files, home, key, value = {}, nil, r:fresh(), tostring(r:number(1, 5))
  local sep = r:pick { "=", " = ", ": " }
  for i = 1, r:int(2, 4) do
    local f = r:chance(60) and r:file("conf") or r:fresh() .. "/" .. r:file("conf")
    local t = { r:fresh() .. sep .. r:number(1, 4) }
    if i == 1 then
      home = f
      t[2] = key .. sep .. value
      r:shuffle(t)
    end
    files[f] = table.concat(t, "\n") .. "\n"
  end
  return {
    requests = { r:ask({ "Which file sets {k}, and to what?", "Find {k} in the files: where is it and what is its value?", "Where is {k} set, and what is its value?" }, { k = key }) },
    files = files,
    solve = function(ctx)
      local out = lib.body(bash(ctx, "I need the file with " .. key .. ". I will use grep.", "grep -r '^" .. key .. "' ."))
      local path, v = out:match("^%./([^:]*):[^=:]*[=:]%s*(.*)$")
      ctx.answer("The line is " .. out .. ".", path .. " sets " .. key .. " to " .. v .. ".")
    end,
    check = function(w) return says(w.answers[1], home) and says(w.answers[1], value) end,
  }
end)

return require("family").new({ name = "files", family = 2, about = "files in the workspace" }, { "bash", "str_replace_editor" }, kinds)
