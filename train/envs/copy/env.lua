-- copy/env.lua - drills: exact copying and looking up, before anything else is learnt.
-- The output of each call is known beforehand, so no tool runs here; tests/train compares a
-- sample of these outputs with the real ones.
local lib = require "lib"

local kinds = {}
local function kind(name, weight, make) kinds[#kinds + 1] = { name = name, weight = weight, make = make } end
local function shell(text) return text .. "\n[exit code: 0]" end

-- Something to copy: words, names, numbers, codes, file names, paths, and mixtures.
local function thing(r)
  local k = r:int(1, 15)
  if k >= 13 then return r:digits() end
  if k <= 3 then return r:word() end
  if k == 4 then return tostring(r:number(1, 9)) end
  if k == 5 then return r:code() end
  if k == 6 then return r:file() end
  if k == 7 then return r:name() end
  if k == 8 then return r:ident() end
  if k == 9 then return r:fresh() .. "/" .. r:file() end
  if k == 10 then return r:word() .. " " .. r:word() end
  if k == 11 then return r:word() .. "=" .. r:number(1, 4) end
  return r:number(1, 3) .. "." .. r:number(1, 3)
end

-- Numbers as they stand in requests, to be copied with their commas and nothing after the last.
local function numbers(r)
  local t = {}
  for i = 1, r:int(2, 6) do t[i] = r:number(1, 4) end
  return table.concat(t, ", ")
end

local function things(r, n, sep)
  local t = {}
  for i = 1, n do t[i] = thing(r) end
  return table.concat(t, sep), t
end

kind("echo", 30, function(r)
  local s = things(r, r:int(1, 4), " ")
  return {
    requests = { r:order({ "Echo {s}.", "Run echo with {s}.", "Print {s} in the shell.", "Use echo to print: {s}", "Say {s} with echo." }, { s = s }) },
    solve = function(ctx)
      local out = lib.body(ctx.drill("I will echo " .. s .. ".", "bash", { { "command", "echo '" .. s .. "'" } }, shell(s)))
      ctx.answer("The output is " .. out .. ".", out)
    end,
    check = function(w) return w.answers[1] == s end,
  }
end)

kind("print", 16, function(r)
  local s = things(r, r:int(1, 3), " ")
  return {
    requests = { r:order({ "Print {s} with python.", "Let python print {s}.", "Use python to print: {s}", "Show {s} from python." }, { s = s }) },
    solve = function(ctx)
      local out = lib.body(ctx.drill("I will print " .. s .. ".", "python", { { "code", "print('" .. s .. "')" } }, s .. "\n[ok]"))
      ctx.answer("The output is " .. out .. ".", out)
    end,
    check = function(w) return w.answers[1] == s end,
  }
end)

kind("repeat", 14, function(r)
  local s = things(r, r:int(1, 5), " ")
  return {
    requests = { r:order({ "Repeat: {s}", "Write exactly this: {s}", "Say {s}", "Copy this text: {s}" }, { s = s }) },
    solve = function(ctx) ctx.answer("I only need to repeat it.", s) end,
    check = function(w) return w.answers[1] == s end,
  }
end)

kind("numbers", 14, function(r)
  local s = numbers(r)
  local n = select(2, s:gsub(",", "")) + 1
  return {
    requests = { r:ask({ "Make a list of {s}.", "Put {s} in a list.", "Let python print the list of {s}, in this order.", "Print {s}, to the last.", "How many numbers are {s}, in all?" }, { s = s }) },
    solve = function(ctx)
      ctx.drill("I need a list. I will use python.", "python", { { "code", "x = [" .. s .. "]\nprint(len(x))" } }, n .. "\n[ok]")
      ctx.answer("The result is " .. n .. ".", "There are " .. n .. " numbers: " .. s .. ".")
    end,
    check = function(w) return w.answers[1]:find(s, 1, true) ~= nil end,
  }
end)

-- A list comes back from python and goes into the answer whole.
kind("list-back", 12, function(r)
  local s, x = numbers(r), r:fresh()
  return {
    requests = { r:ask({ "Let python show the list of {s}.", "Show {s} as a list.", "Give me {s} as a python list." }, { s = s }) },
    solve = function(ctx)
      local v = lib.body(ctx.drill("I need to show a list. I will use python.", "python", { { "code", x .. " = [" .. s .. "]\nprint(" .. x .. ")" } }, "[" .. s .. "]\n[ok]"))
      ctx.answer("The result is " .. v .. ".", "The list: " .. v .. ".")
    end,
    check = function(w) return w.answers[1]:find("[" .. s .. "]", 1, true) ~= nil end,
  }
end)

kind("value", 24, function(r)
  local f, n, lines, keys, values = r:file(), r:int(2, 14), {}, {}, {}
  local sep = r:pick { "=", ": ", " = ", " ", "," }
  for i = 1, n do
    keys[i], values[i] = r:fresh(), r:chance(60) and tostring(r:number(1, 6)) or r:word()
    lines[i] = keys[i] .. sep .. values[i]
  end
  local k = r:int(1, n)
  return {
    requests = { r:ask({ "Show {f}. What is the value of {k}?", "Read {f} and tell me {k}.", "In {f}, what stands at {k}?" }, { f = f, k = keys[k] }) },
    solve = function(ctx)
      ctx.drill("I need " .. keys[k] .. " from " .. f .. ".", "bash", { { "command", "cat " .. f } }, shell(table.concat(lines, "\n")))
      ctx.answer("The line is " .. lines[k] .. ".", keys[k] .. " is " .. values[k] .. ".")
    end,
    check = function(w) return lib.says(w.answers[1], values[k]) end,
  }
end)

kind("sed", 8, function(r)
  local f, n = r:file(), r:int(1, 400)
  local s = r:sentence()
  return {
    requests = { r:ask({ "What is on line {n} of {f}?", "Show me line {n} of {f}." }, { n = n, f = f }) },
    solve = function(ctx)
      ctx.drill(("I need line %d of %s. I will use sed."):format(n, f), "bash", { { "command", ("sed -n %dp %s"):format(n, f) } }, shell(s))
      ctx.answer("The line is there.", "Line " .. n .. " is: " .. s)
    end,
    check = function(w) return w.answers[1]:find(s, 1, true) ~= nil end,
  }
end)

kind("swap", 8, function(r)
  local f, a, b = r:file(), thing(r), thing(r)
  local text = "The file " .. f .. " has been edited. Here is the result:\n     1\t" .. b
  return {
    requests = { r:order({ "In {f} replace {a} with {b}.", "Change {a} to {b} in {f}.", "Replace {a} by {b} in the file {f}." }, { f = f, a = a, b = b }) },
    solve = function(ctx)
      ctx.drill("I will replace the text in " .. f .. ".", "str_replace_editor",
        { { "command", "str_replace" }, { "path", f }, { "old_str", a }, { "new_str", b } }, text)
      ctx.answer("The edit is done.", "I replaced " .. a .. " with " .. b .. " in " .. f .. ".")
    end,
    check = function(w) return w.answers[1]:find(b, 1, true) ~= nil end,
  }
end)

return require("family").new({ name = "copy", family = 0, about = "copy drills" }, { "bash", "python", "str_replace_editor" }, kinds)
