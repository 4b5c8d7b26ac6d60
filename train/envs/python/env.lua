-- python/env.lua - family 1: arithmetic and small questions about data, through `python`.
-- The verifier computes every number here, in Lua, and looks for it in the answer.
local lib = require "lib"
local says = lib.says

local kinds = {}
local function kind(name, weight, make) kinds[#kinds + 1] = { name = name, weight = weight, make = make } end

-- One call whose last line is the value; the answer says it.
local function compute(ctx, think, code, say)
  local v = lib.body(ctx.call(think, "python", { { "code", code } }))
  ctx.answer("The result is " .. v .. ".", lib.fill(say, { v = v }))
end

-- Training draws more lists in which a number stands twice: where copying goes astray.
local function again(r, t)
  if lib.plain > 0 and r:chance(45) then t[r:int(2, #t)] = t[r:int(1, #t)] end
end

local ops = {
  { "+", { "{a} + {b}", "{a} plus {b}", "the sum of {a} and {b}" }, function(a, b) return a + b end },
  { "-", { "{a} - {b}", "{a} minus {b}", "the difference {a} - {b}" }, function(a, b) return a - b end },
  { "*", { "{a} * {b}", "{a} times {b}", "{a} x {b}", "the product of {a} and {b}" }, function(a, b) return a * b end },
  { "//", { "{a} // {b}", "the whole part of {a} divided by {b}", "the integer quotient of {a} and {b}" }, function(a, b) return a // b end },
  { "%", { "{a} % {b}", "{a} mod {b}", "the remainder of {a} divided by {b}" }, function(a, b) return a % b end },
}
local whats = { "What is {x}?", "Compute {x}.", "How much is {x}?", "Calculate {x}.", "I need {x}.", "Work out {x}.",
  "Tell me {x}.", "What do you get for {x}?", "What is {x}?", "{x}?", "What does {x} give?", "Use python to compute {x}.", "{x}",
  "How much does {x} make?", "Please calculate {x}.", "What is the result of {x}?", "Can you calculate {x}?",
      more = { "calculate {x}", "compute {x} please", "{x} is how much?", "What's {x}", "How much would {x} be?" } }

kind("binary", 20, function(r)
  local op = r:pick(ops)
  local a, b = r:number(1, 6), r:number(1, op[1] == "*" and 6 or 5)
  local x = lib.fill(r:pick(op[2]), { a = a, b = b })
  local expr = a .. " " .. op[1] .. " " .. b
  return {
    requests = { r:ask(whats, { x = x }) },
    solve = function(ctx)
      compute(ctx, "I need to compute " .. expr .. ". I will use python.", "print(" .. expr .. ")", expr .. " = {v}.")
    end,
    check = function(w) return says(w.answers[1], op[3](a, b)) end,
  }
end)

kind("power", 6, function(r)
  local a, b = r:int(2, 40), r:int(2, 9)
  if r:chance(15) then a = b end
  while a ^ b > 1e15 do b = b - 1 end
  local x = lib.fill(r:pick { "{a} to the power of {b}", "{a} to the power {b}", "{a} ** {b}", "{a}^{b}", "{a} squared", "{a} cubed" }, { a = a, b = b })
  if x:find("squared") then b = 2 end
  if x:find("cubed") then b = 3 end
  local expr, v = a .. " ** " .. b, 1
  for _ = 1, b do v = v * a end
  return {
    requests = { r:ask(whats, { x = x }) },
    solve = function(ctx)
      compute(ctx, "I need to compute " .. expr .. ". I will use python.", "print(" .. expr .. ")", expr .. " = {v}.")
    end,
    check = function(w) return says(w.answers[1], v) end,
  }
end)

-- As people type it: with blanks or without, small numbers, x and ^ and a bare slash. Weighs nothing
-- where one seed must stay one task, so only training draws it.
local typed_whats = { more = { "{x}=", "{x} =", "{x}=?", "{x} = ?", "what's {x}", "what is {x}", "{x}", "{x}?" } }
for i, w in ipairs(whats) do typed_whats[i] = w end

local function typed_number(r) return r:chance(75) and r:int(1, r:pick { 9, 20, 100, 100, 1000 }) or r:number(1, 5) end

-- As typed and as Python wants it, the operator with its blanks.
local function operator(r, signs)
  local sign, blanks = r:pick(signs), r:int(1, 10)
  local before, after = (blanks >= 8 and blanks ~= 10) and " " or "", blanks >= 9 and " " or ""
  return { before .. sign .. after, before .. (sign == "x" and "*" or sign) .. after }
end

local function value_of(expr)
  local v = assert(load("return " .. expr))()
  return math.type(v) == "integer" and tostring(v) or v == v // 1 and ("%.1f"):format(v) or ("%.14g"):format(v)
end

local function typed_root(r)
  local n = r:int(2, 99)
  return "the square root of " .. n, ("round(math.sqrt(%d), 3)"):format(n), ("%.3f"):format(math.sqrt(n)),
    ("I need the square root of %d. I will use python."):format(n), "import math\n", "It is {v}."
end

-- typed, Python's, value
local function typed_quotient(r)
  local o, b = operator(r, { "/" }), r:int(2, 25)
  local a = b * r:int(1, 60)
  if r:chance(40) then a, b = typed_number(r), r:pick { 2, 4, 5, 8, 10 } end
  local x = a .. o[1] .. b
  return x, x, value_of(x)
end

local function typed_power(r)
  local a, b = r:int(2, 12), r:int(2, 10)
  local v = 1
  for _ = 1, b do v = v * a end
  return a .. r:pick { "^", "^", "**", " ^ " } .. b, a .. " ** " .. b, tostring(v)
end

local function typed_sum(r)
  local shape = r:pick { "{a}{p}{b}", "{a}{p}{b}", "{a}{p}{b}", "{a}{p}{b}", "{a}{p}{b}{q}{c}", "({a}{p}{b}){q}{c}", "{a}{p}({b}{q}{c})" }
  local p, q = operator(r, { "+", "+", "-", "-", "*", "*", "*", "x" }), operator(r, { "+", "-", "*", "x" })
  local n = { a = typed_number(r), b = typed_number(r), c = typed_number(r) }
  if r:chance(30) then n[r:pick { "b", "c" }] = n.a end
  local function with(i) return lib.fill(shape, { a = n.a, b = n.b, c = n.c, p = p[i], q = q[i] }) end
  return with(1), with(2), value_of(with(2))
end

kind("typed", lib.plain > 0 and 35 or 0, function(r)
  local x, code, v, think, import, say = r:pick { typed_sum, typed_sum, typed_sum, typed_sum, typed_quotient, typed_power, typed_root }(r)
  return {
    requests = { r:ask(typed_whats, { x = x }) },
    solve = function(ctx)
      compute(ctx, think or "I need to compute " .. code .. ". I will use python.", (import or "") .. "print(" .. code .. ")", say or code .. " = {v}.")
    end,
    check = function(w) return says(w.answers[1], v) end,
  }
end)

kind("expression", 10, function(r)
  local n = { r:number(1, 4), r:number(1, 4), r:number(1, 3), r:number(1, 3) }
  again(r, n)
  local a, b, c, d = n[1], n[2], n[3], n[4]
  local forms = {
    { "{a} + {b} * {c}", a + b * c }, { "({a} + {b}) * {c}", (a + b) * c }, { "{a} * {b} - {c}", a * b - c },
    { "{a} - {b} + {c}", a - b + c }, { "{a} * {b} + {c} * {d}", a * b + c * d }, { "({a} - {b}) * ({c} + {d})", (a - b) * (c + d) },
    { "{a} + {b} + {c} + {d}", a + b + c + d }, { "{a} * ({b} - {c})", a * (b - c) },
  }
  local f = r:pick(forms)
  local expr = lib.fill(f[1], { a = a, b = b, c = c, d = d })
  return {
    requests = { r:ask(whats, { x = expr }) },
    solve = function(ctx)
      compute(ctx, "I need to compute " .. expr .. ". I will use python.", "print(" .. expr .. ")", expr .. " = {v}.")
    end,
    check = function(w) return says(w.answers[1], f[2]) end,
  }
end)

kind("decimal", 6, function(r)
  local a, b = r:number(1, 5), r:number(1, 4)
  local d = r:int(2, 3)
  return {
    requests = { r:ask({ "What is {a} divided by {b}, rounded to {d} decimals?", "Divide {a} by {b} and round to {d} decimals.",
      "How much is {a} / {b} to {d} decimals?" }, { a = a, b = b, d = d }) },
    solve = function(ctx)
      compute(ctx, ("I need to divide %d by %d. I will use python."):format(a, b),
        ("print(round(%d / %d, %d))"):format(a, b, d), ("%d / %d = {v}."):format(a, b))
    end,
    check = function(w) return says(w.answers[1], ("%." .. d .. "f"):format(a / b)) end,
  }
end)

kind("story", 14, function(r)
  local a, b, x, y = r:number(1, 4), r:number(1, 3), r:fresh(), r:name()
  if lib.plain > 0 and r:chance(60) then a, b = r:int(1, 20), r:int(1, 12) end
  local forms = {
    { "A box holds {a} {x}. How many {x} are in {b} boxes?", "*", a * b },
    { "{y} has {a} {x} and buys {b} more. How many {x} does {y} have now?", "+", a + b },
    { "{y} had {a} {x} and gave away {b}. How many {x} are left?", "-", a - b },
    { "{a} {x} are packed in groups of {b}. How many full groups are there?", "//", a // b },
    { "{a} {x} are shared by {b} people. How many are left over?", "%", a % b },
    { "One {x} costs {a} coins. What do {b} of them cost?", "*", a * b },
    { "A train runs {a} km every hour. How far does it run in {b} hours?", "*", a * b },
    { "{y} reads {a} pages a day. How many pages is that in {b} days?", "*", a * b },
    { "There are {a} {x} in the first store and {b} in the second. How many {x} are there in total?", "+", a + b },
    { "{y} saved {a} coins and spent {b}. How many coins remain?", "-", a - b },
    { "If I have {a} {x} and buy {b} more, how many {x} do I have?", "+", a + b },
    { "I have {a} {x} and get {b} more. How many do I have now?", "+", a + b },
    { "If I have {a} {x} and eat {b}, how many are left?", "-", a - b },
    { "If one of the {x} costs {a}, how much do {b} cost?", "*", a * b },
    { "I earn {a} a month. How much is that in {b} months?", "*", a * b },
  }
  local f = r:pick(forms)
  local expr = a .. " " .. f[2] .. " " .. b
  return {
    requests = { r:ask({ f[1] }, { a = a, b = b, x = x, y = y }) },
    solve = function(ctx)
      compute(ctx, "This is " .. expr .. ". I will use python.", "print(" .. expr .. ")", "The answer is {v}.")
    end,
    check = function(w) return says(w.answers[1], f[3]) end,
  }
end)

local function sum(t) local s = 0 for _, v in ipairs(t) do s = s + v end return s end
local function largest(t) return math.max(table.unpack(t)) end
local function smallest(t) return math.min(table.unpack(t)) end

local list_ops = {
  { "the sum", "sum({l})", sum, { "What is the sum of {n}?", "Add up {n}.", "Sum these numbers: {n}", "What do {n} add up to?", "Give me the total of {n}.", "Add {n}.", "Add {n} together.", "What is {n} in total?" } },
  { "the largest", "max({l})", largest, { "What is the largest of {n}?", "Which is the biggest number: {n}?", "Find the maximum of {n}.", "Which of {n} is the biggest?", "What is the maximum of {n}?" } },
  { "the smallest", "min({l})", smallest, { "What is the smallest of {n}?", "Which is the least number: {n}?", "Find the minimum of {n}.", "Which of {n} is the smallest?", "What is the minimum of {n}?" } },
  { "the mean", "round(sum({l}) / len({l}), 2)", function(t) return ("%.2f"):format(sum(t) / #t) end,
    { "What is the mean of {n}, to 2 decimals?", "What is the average of {n}, rounded to 2 decimals?", "What is the average of {n}?", "What is the mean of {n}?", "Compute the average of {n}." } },
  { "the range", "max({l}) - min({l})", function(t) return largest(t) - smallest(t) end,
    { "What is the range of {n}?", "What is the largest minus the smallest of {n}?" } },
}

kind("list", 14, function(r)
  local op, t = r:pick(list_ops), {}
  local short = op[2]:find("{l}.*{l}")
  for i = 1, r:int(3, short and 4 or 5) do t[i] = r:number(1, 4) end
  again(r, t)
  local n = table.concat(t, ", ")
  local shown = r:chance(50) and n or (table.concat(t, ", ", 1, #t - 1) .. " and " .. t[#t])
  local code
  if short then
    code = "x = [" .. n .. "]\nprint(" .. op[2]:gsub("{l}", "x") .. ")"
  else
    code = "print(" .. op[2]:gsub("{l}", "[" .. n .. "]") .. ")"
  end
  return {
    requests = { r:ask(op[4], { n = shown }) },
    solve = function(ctx)
      compute(ctx, "I need " .. op[1] .. " of a list. I will use python.", code, lib.title(op[1]) .. " is {v}.")
    end,
    check = function(w) return says(w.answers[1], op[3](t)) end,
  }
end)

kind("above", 5, function(r)
  local t, limit, hits = {}, r:int(20, 80), 0
  local over = r:chance(50)
  for i = 1, r:int(3, 6) do
    t[i] = r:int(1, 99)
  end
  again(r, t)
  for _, v in ipairs(t) do
    if over and v > limit or not over and v < limit then hits = hits + 1 end
  end
  local word = over and r:pick { "greater than", "above", "larger than" } or r:pick { "less than", "below", "smaller than" }
  return {
    requests = { r:ask({ "How many of {n} are {o} {m}?", "Count the numbers {o} {m} in {n}." },
      { n = table.concat(t, ", "), o = word, m = limit }) },
    solve = function(ctx)
      compute(ctx, ("I need to count the numbers %s %d. I will use python."):format(word, limit),
        ("print(len([x for x in [%s] if x %s %d]))"):format(table.concat(t, ", "), over and ">" or "<", limit), "The count is {v}.")
    end,
    check = function(w) return says(w.answers[1], hits) end,
  }
end)

kind("sorted", 3, function(r)
  local t = {}
  for i = 1, r:int(3, 5) do t[i] = r:number(1, 3) end
  again(r, t)
  local n, back = table.concat(t, ", "), r:chance(40)
  local s = { table.unpack(t) }
  table.sort(s, back and function(a, b) return a > b end or nil)
  return {
    requests = { r:ask(back and { "Sort {n} from largest to smallest.", "Put {n} in descending order.",
      more = { "Sort {n} from high to low.", "Order {n} from high to low.", "Sort {n} backwards, largest first." } }
      or { "Sort {n} from smallest to largest.", "Put {n} in ascending order.", "Sort {n}.", "Sort these numbers: {n}",
      more = { "sort {n}", "Sort the list {n}.", "Order {n} from low to high.", "Put these numbers in order: {n}", "Sort the numbers {n}." } }, { n = n }) },
    solve = function(ctx)
      local v = lib.body(ctx.call("I need to sort a list. I will use python.", "python",
        { { "code", "print(sorted([" .. n .. "]" .. (back and ", reverse=True" or "") .. "))" } }))
      ctx.answer("The list is sorted.", "Sorted: " .. v .. ".")
    end,
    check = function(w) return w.answers[1]:find(table.concat(s, ", "), 1, true) ~= nil end,
  }
end)

kind("percent", 5, function(r)
  local p, n = r:int(1, 99), r:number(2, 5)
  return {
    requests = { r:ask({ "What is {p} percent of {n}?", "How much is {p}% of {n}?", "Compute {p} percent of {n}.", "What is {p}% of {n}?", "{p}% of {n}?" }, { p = p, n = n }) },
    solve = function(ctx)
      compute(ctx, ("I need %d percent of %d. I will use python."):format(p, n), ("print(%d * %d / 100)"):format(n, p),
        ("%d percent of %d is {v}."):format(p, n))
    end,
    check = function(w) return says(w.answers[1], ("%.2f"):format(n * p / 100)) end,
  }
end)

kind("text", 10, function(r)
  local s = r:chance(40) and r:word() .. r:word() or r:ident()
  local letter = s:sub(r:int(1, #s), -1):sub(1, 1)
  local _, count = s:gsub(letter:gsub("%p", "%%%0"), "")
  local forms = {
    { { "How many letters has the word {s}?", "How long is the string {s}?", "What is the length of {s}?", "How many letters are in {s}?", "How many characters has {s}?", "How long is the word {s}?" },
      "the length of {s}", "len('{s}')", #s, "The length of {s} is {v}." },
    { { "Reverse the string {s}.", "Write {s} backwards.", "What is {s} spelled backwards?", "Reverse the word {s}.", "Reverse {s}.", "Spell {s} backwards." },
      "{s} backwards", "'{s}'[::-1]", s:reverse(), "{s} backwards is {v}." },
    { { "How often does {c} occur in {s}?", "How many times does {c} appear in {s}?", "Count the {c} in {s}.", "How many times is {c} in {s}?", "How often is the letter {c} in {s}?", "Count the letter {c} in {s}." },
      "the number of {c} in {s}", "'{s}'.count('{c}')", count, "{c} occurs {v} times in {s}." },
    { { "Write {s} in capital letters.", "Turn {s} into upper case.", "Put {s} in upper case.", "Make {s} upper case.", "Write the word {s} in capitals." },
      "{s} in upper case", "'{s}'.upper()", s:upper(), "In upper case it is {v}." },
  }
  local f, v = r:pick(forms), { s = s, c = letter, v = "{v}" }
  return {
    requests = { r:ask(f[1], v) },
    solve = function(ctx)
      compute(ctx, lib.fill("I need " .. f[2] .. ". I will use python.", v), lib.fill("print(" .. f[3] .. ")", v), lib.fill(f[5], v))
    end,
    check = function(w) return says(w.answers[1], f[4]) end,
  }
end)

-- Names with values in the request itself.
kind("table", 10, function(r)
  local names, values, used = {}, {}, {}
  for i = 1, r:int(2, 4) do
    names[i] = r:fresh()
    repeat values[i] = r:number(1, 3) until not used[values[i]]
    used[values[i]] = true
  end
  local best, worst = 1, 1
  for i = 2, #names do
    if values[i] > values[best] then best = i end
    if values[i] < values[worst] then worst = i end
  end
  local shown, dict = {}, {}
  local style = r:int(1, 3)
  for i, n in ipairs(names) do
    shown[i] = n .. ({ " ", ": ", " = " })[style] .. values[i]
    dict[i] = "'" .. n .. "': " .. values[i]
  end
  local sep = style == 3 and "\n" or ", "
  local forms = {
    { "Which has the largest value?", "the name with the largest value", "max(d, key=d.get)", names[best], "{v} has the largest value." },
    { "Which has the smallest value?", "the name with the smallest value", "min(d, key=d.get)", names[worst], "{v} has the smallest value." },
    { "What is the total?", "the total", "sum(d.values())", sum(values), "The total is {v}." },
  }
  local f = r:pick(forms)
  local q = r:pick { "Here are some values: {t}. {q}", "{t}\n{q}", "{q} {t}", "The data: {t}. {q}" }
  return {
    requests = { lib.fill(q, { t = table.concat(shown, sep), q = f[1] }) },
    solve = function(ctx)
      compute(ctx, "I need " .. f[2] .. ". I will use python.", "d = {" .. table.concat(dict, ", ") .. "}\nprint(" .. f[3] .. ")", f[5])
    end,
    check = function(w) return says(w.answers[1], f[4]) end,
  }
end)

kind("series", 4, function(r)
  local a = r:number(1, 3)
  local b = a + r:number(1, 4)
  return {
    requests = { r:ask({ "What is the sum of all whole numbers from {a} to {b}?", "Add all numbers from {a} to {b}.", "What is the sum of the numbers from {a} to {b}?", "Add up the numbers from {a} to {b}." }, { a = a, b = b }) },
    solve = function(ctx)
      compute(ctx, ("I need the sum from %d to %d. I will use python."):format(a, b), ("print(sum(range(%d, %d + 1)))"):format(a, b),
        "The sum is {v}.")
    end,
    check = function(w) return says(w.answers[1], (a + b) * (b - a + 1) // 2) end,
  }
end)

local function to_base(n, base)
  local s = ""
  repeat
    s = ("0123456789abcdef"):sub(n % base + 1, n % base + 1) .. s
    n = n // base
  until n == 0
  return s
end

kind("base", 5, function(r)
  local n = r:number(2, 4)
  local h, b = to_base(n, 16), to_base(n, 2)
  local forms = {
    { "{n} in hexadecimal", ("hex(%d)"):format(n), "0x" .. h }, { "{n} in binary", ("bin(%d)"):format(n), "0b" .. b },
    { "the hexadecimal number {h} in decimal", ("int('%s', 16)"):format(h), n },
    { "the binary number {b} in decimal", ("int('%s', 2)"):format(b), n },
  }
  local f = r:pick(forms)
  local x = lib.fill(f[1], { n = n, h = h, b = b })
  return {
    requests = { r:ask({ "What is {x}?", "Convert: {x}.", "Give me {x}." }, { x = x }) },
    solve = function(ctx)
      compute(ctx, "I need " .. x .. ". I will use python.", "print(" .. f[2] .. ")", "It is {v}.")
    end,
    check = function(w) return says(w.answers[1], f[3]) end,
  }
end)

-- Two results of one call.
kind("two", 3, function(r)
  local op, p = r:pick(ops), {}
  for i = 1, 2 do p[i] = { r:number(1, 4), r:number(1, 3) } end
  if lib.plain > 0 and r:chance(30) then p[2][r:int(1, 2)] = p[1][r:int(1, 2)] end
  local e, f = p[1][1] .. " " .. op[1] .. " " .. p[1][2], p[2][1] .. " " .. op[1] .. " " .. p[2][2]
  return {
    requests = { r:ask({ "What is {a} and what is {b}?", "What are {a} and {b}?", "Compute {a} and {b}.", "Tell me {a} and {b}.",
      more = { "what's {a} and {b}?", "{a} and {b}?", "How much are {a} and {b}?", "Calculate {a}, then {b}." } }, { a = e, b = f }) },
    solve = function(ctx)
      local v = lib.split(lib.body(ctx.call("I need " .. e .. " and " .. f .. ". I will use python.", "python",
        { { "code", "print(" .. e .. ", " .. f .. ")" } })))
      ctx.answer("I have both results.", ("The results are %s and %s."):format(v[1], v[2]))
    end,
    check = function(w)
      return says(w.answers[1], op[3](p[1][1], p[1][2])) and says(w.answers[1], op[3](p[2][1], p[2][2]))
    end,
  }
end)

kind("range", 2, function(r)
  local a, t = r:number(1, 3), {}
  local b = a + r:int(1, 9)
  for n = a, b do t[#t + 1] = n end
  return {
    requests = { r:ask({ "List the numbers from {a} to {b}.", "Count from {a} to {b}.", "Print the numbers from {a} to {b}.", "Write all numbers from {a} to {b}." }, { a = a, b = b }) },
    solve = function(ctx)
      local v = lib.body(ctx.call(("I need the numbers from %d to %d. I will use python."):format(a, b), "python",
        { { "code", ("print(*range(%d, %d + 1))"):format(a, b) } }))
      ctx.answer("I have the numbers.", (v:gsub(" ", ", ")) .. ".")
    end,
    check = function(w) return w.answers[1]:find(table.concat(t, ", "), 1, true) ~= nil end,
  }
end)

local function gcd(a, b) while b ~= 0 do a, b = b, a % b end return a end

kind("math", 7, function(r)
  local g = r:int(2, 30)
  local a, b, n = g * r:int(2, 90), g * r:int(2, 90), r:int(4, 18)
  local f = 1
  for i = 2, n do f = f * i end
  local q = r:number(2, 5)
  local forms = {
    { "the greatest common divisor of {a} and {b}", "math.gcd({a}, {b})", gcd(a, b) },
    { "the least common multiple of {a} and {b}", "math.lcm({a}, {b})", a * b // gcd(a, b) },
    { "the factorial of {n}", "math.factorial({n})", f },
    { "the square root of {q}", "round(math.sqrt({q}), 3)", ("%.3f"):format(math.sqrt(q)) },
    { "the square root of {q}, to 3 decimals", "round(math.sqrt({q}), 3)", ("%.3f"):format(math.sqrt(q)) },
  }
  local k = r:pick(forms)
  local v = { a = a, b = b, n = n, q = q }
  local x = lib.fill(k[1], v)
  return {
    requests = { r:ask(whats, { x = x }) },
    solve = function(ctx)
      compute(ctx, "I need " .. x .. ". I will use python.", "import math\nprint(" .. lib.fill(k[2], v) .. ")", "It is {v}.")
    end,
    check = function(w) return says(w.answers[1], k[3]) end,
  }
end)

kind("divides", 4, function(r)
  local b = r:int(2, 97)
  local a = r:chance(50) and b * r:int(2, 200) or r:number(2, 5)
  return {
    requests = { r:ask({ "Is {a} divisible by {b}?", "Can {a} be divided by {b} without remainder?", "Does {b} divide {a}?" }, { a = a, b = b }) },
    solve = function(ctx)
      local v = lib.body(ctx.call(("I need the remainder of %d by %d. I will use python."):format(a, b), "python",
        { { "code", ("print(%d %% %d)"):format(a, b) } }))
      if v == "0" then
        ctx.answer("The remainder is 0.", ("Yes, %d is divisible by %d."):format(a, b))
      else
        ctx.answer("The remainder is " .. v .. ".", ("No, %d is not divisible by %d; the remainder is %s."):format(a, b, v))
      end
    end,
    check = function(w)
      if a % b == 0 then return w.answers[1]:match("^Yes") and true or false end
      return w.answers[1]:match("^No") and says(w.answers[1], a % b)
    end,
  }
end)

kind("prime", 3, function(r)
  local n = r:number(1, 4)
  if n < 2 then n = 2 end
  local prime = true
  for i = 2, math.floor(math.sqrt(n)) do if n % i == 0 then prime = false end end
  return {
    requests = { r:ask({ "Is {n} a prime number?", "Is {n} prime?", "Tell me if {n} is prime." }, { n = n }) },
    solve = function(ctx)
      local v = lib.body(ctx.call("I need to test if " .. n .. " is prime. I will use python.", "python",
        { { "code", ("print(all(%d %% i for i in range(2, %d)))"):format(n, n) } }))
      ctx.answer("The result is " .. v .. ".", v == "True" and ("Yes, %d is prime."):format(n) or ("No, %d is not prime."):format(n))
    end,
    check = function(w) return w.answers[1]:match(prime and "^Yes" or "^No") ~= nil end,
  }
end)

kind("zero", 3, function(r)
  local a = r:number(1, 5)
  local b = r:number(1, 3)
  local expr = r:pick { "{a} / 0", "{a} / ({b} - {b})", "{a} % 0", "{a} // 0" }
  expr = lib.fill(expr, { a = a, b = b })
  return {
    requests = { r:ask(whats, { x = expr }) },
    solve = function(ctx)
      ctx.call("I need to compute " .. expr .. ". I will use python.", "python", { { "code", "print(" .. expr .. ")" } })
      ctx.answer("This is a division by zero.", expr .. " has no value: it divides by zero.")
    end,
    check = function(w) return w.answers[1]:find("zero") ~= nil and not w.answers[1]:find("=") end,
  }
end)

-- Numbers in a file; sometimes under another name, sometimes with a line that is no number.
local file_ops = {
  { "the sum", "sum({l})", sum }, { "the largest number", "max({l})", largest }, { "the smallest number", "min({l})", smallest },
  { "the mean rounded to 2 decimals", "round(sum({l}) / len({l}), 2)", function(t) return ("%.2f"):format(sum(t) / #t) end },
}
kind("file", 14, function(r)
  local op, t, lines = r:pick(file_ops), {}, {}
  local f = r:file(r:pick { "txt", "dat", "list", "log" })
  local real = f
  for i = 1, r:int(3, 30) do
    t[i] = r:number(1, 4)
    lines[i] = t[i]
  end
  local trouble = r:int(1, 10)
  local bad
  if trouble == 1 then
    bad = r:fresh()
    table.insert(lines, r:int(1, #lines), bad)
  elseif trouble == 2 then
    real = r:fresh() .. "." .. f:match("%.(%w+)$")
  end
  local function code(filter)
    local l = "[int(x) for x in open('%s')" .. filter .. "]"
    return "x = " .. l .. "\nprint(" .. op[2]:gsub("{l}", "x") .. ")"
  end
  return {
    requests = { r:ask({ "The file {f} has one number per line. What is {o} of them?", "What is {o} of the numbers in {f}?",
      "Read the numbers in {f} and tell me {o}.", "Find {o} of the numbers in the file {f}.", "What is {o} of all the numbers in {f}?" }, { f = f, o = op[1] }) },
    files = { [real] = table.concat(lines, "\n") .. "\n" },
    solve = function(ctx)
      local out = ctx.call(("I need %s of the numbers in %s. I will use python."):format(op[1], f), "python",
        { { "code", code(""):format(f) } })
      local name, say = f, lib.title(op[1]:gsub(" rounded.*", "")) .. " is {v}."
      if out:find("FileNotFoundError") then
        local ls = lib.body(ctx.call("The file " .. f .. " is missing. I will list the files.", "python",
          { { "code", "import os\nprint(os.listdir('.'))" } }))
        name = ls:match("'([^']*)'")
        out = ctx.call("The only file is " .. name .. ". I will read it.", "python", { { "code", code(""):format(name) } })
        say = "There is no file " .. f .. ". In " .. name .. ", " .. say:gsub("^T", "t")
      elseif out:find("ValueError") then
        out = ctx.call("One line is not a number. I will skip it.", "python", { { "code", code(" if x.strip().isdigit()"):format(f) } })
        say = say:gsub("%.$", ", without the line that is not a number.")
      end
      local v = lib.body(out)
      ctx.answer("The result is " .. v .. ".", lib.fill(say, { v = v }))
    end,
    check = function(w) return says(w.answers[1], op[3](t)) end,
  }
end)

kind("csv", 10, function(r)
  local key = r:pick { "name", "item", "city", "team" }
  local col = lib.other(r, key)
  local f, rows, lines, used = r:file("csv"), {}, {}, {}
  lines[1] = key .. "," .. col
  for i = 1, r:int(3, 20) do
    local v
    repeat v = r:number(1, 3) until not used[v]
    used[v] = true
    rows[i] = { lib.other(r, key), v }
    lines[i + 1] = rows[i][1] .. "," .. v
  end
  local total = 0
  for _, row in ipairs(rows) do total = total + row[2] end
  local forms = {
    { { "What is the total {c} in {f}?", "Add up the column {c} of {f}.", "What is the sum of {c} in {f}?", "Sum the {c} in {f}.", "What do the {c} in {f} add up to?" }, "the total of {c}",
      "sum(int(r['{c}']) for r in rows)", total, "The total {c} is {v}." },
    { { "What is the average {c} in {f}, to 2 decimals?", "What is the mean of the column {c} in {f}, to 2 decimals?", "What is the average {c} in {f}?", "What is the average of {c} in {f}?", "What is the mean {c} in {f}?" }, "the mean of {c}",
      "round(sum(int(r['{c}']) for r in rows) / len(rows), 2)", ("%.2f"):format(total / #rows), "The mean {c} is {v}." },
    { { "How many rows has {f}?", "How many entries are in the table {f}?", "How many rows are in {f}?", "How many rows does {f} have?" }, "the number of rows", "len(rows)", #rows, "There are {v} rows." },
  }
  local k, v = r:pick(forms), { k = key, c = col, f = f, v = "{v}" }
  return {
    requests = { r:ask(k[1], v) },
    files = { [f] = table.concat(lines, "\n") .. "\n" },
    solve = function(ctx)
      compute(ctx, lib.fill("I need " .. k[2] .. " in {f}. I will use python.", v),
        "import csv\n" .. lib.fill("rows = list(csv.DictReader(open('{f}')))\nprint(" .. k[3] .. ")", v), lib.fill(k[5], v))
    end,
    check = function(w) return says(w.answers[1], k[4]) end,
  }
end)

return require("family").new({ name = "python", family = 1, about = "arithmetic and small data questions" }, { "python" }, kinds)
