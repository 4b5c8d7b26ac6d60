-- host.lua ENV.lua [PLAIN] - runs one environment for the harness, a JSON object per line in and
-- out; PLAIN: see lib.plain.
--   {"op":"task","seed":N}       draw a task            -> {"requests":[...],"kind":...}
--   {"op":"setup","dir":D}       write its files to D   -> {}
--   {"op":"solve"}               start the oracle       -> step
--   {"op":"result","text":T}     the call's output      -> step
--   {"op":"verify","dir":D,"answers":[...],"calls":[{"turn","name","args","result"}]}
--                                                         -> {"score":0|1,"details":...}
-- A step is {"think":..,"call":{"name":..,"args":[[k,v],..]}}, {"think":..,"answer":..} or {"done":true}.
-- The oracle sees the world through its calls alone: it gets no directory.
local here = arg[0]:match("^(.*)/[^/]*$") or "."
package.path = here .. "/?.lua;" .. package.path
local json, lib = require "json", require "lib"
lib.plain = tonumber(arg[2] or 0) -- kinds may weigh otherwise with it
local env = dofile(arg[1])
local task, run

local function oracle(ctx) env.oracle(task, ctx) end

local ctx = {}
function ctx.call(think, name, args)
  return coroutine.yield { think = think, call = { name = name, args = args } }
end
-- A drill: the output is known beforehand and the tool is not run.
function ctx.drill(think, name, args, text)
  return coroutine.yield { think = think, call = { name = name, args = args }, given = text }
end
function ctx.answer(think, text) coroutine.yield { think = think, answer = text } end

local function step(...)
  local ok, s = coroutine.resume(run, ...)
  if not ok then error(s) end
  if coroutine.status(run) == "dead" then return { done = true } end
  return s
end

local ops = {}
function ops.meta() return env.meta end
function ops.task(m)
  task = env.tasks(m.seed)
  return { requests = task.requests, kind = task.kind }
end
function ops.setup(m)
  env.setup(task, m.dir)
  return {}
end
function ops.solve()
  run = coroutine.create(oracle)
  return step(ctx)
end
function ops.result(m) return step(m.text) end
function ops.verify(m)
  local world = { answers = m.answers or {}, calls = m.calls or {} }
  function world.read(name) return lib.read(m.dir .. "/" .. name) end
  local score, details = env.verify(task, world)
  return { score = score, details = details or "" }
end

for line in io.lines() do
  local m = json.read(line)
  local ok, out = xpcall(ops[m.op], debug.traceback, m)
  if not ok then out = { error = tostring(out) } end
  io.write(json.write(out), "\n")
  io.flush()
end
