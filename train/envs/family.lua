-- family.lua - an environment made of kinds of task: { name, weight, make(rng) -> task }.
-- A task: requests (one per turn), files (path -> text), docs (list of {path, text}: the same,
-- in order), solve(ctx) the oracle, check(world) the verifier.
local lib = require "lib"
local family = {}

local function make_dirs(dir, path)
  local parts = path:match("^(.*)/[^/]*$")
  if parts then assert(os.execute("mkdir -p '" .. dir .. "/" .. parts .. "'")) end
end

function family.new(meta, tools, kinds)
  local total = 0
  for _, k in ipairs(kinds) do total = total + k.weight end
  local env = { meta = meta, tools = tools }

  function env.tasks(seed)
    local r = lib.rng(seed)
    for _ = 1, 3 do r:next() end
    local at = r:int(1, total)
    for _, k in ipairs(kinds) do
      at = at - k.weight
      if at <= 0 then
        local task = k.make(r)
        task.kind = k.name
        return task
      end
    end
  end

  function env.setup(task, dir)
    for path, text in pairs(task.files or {}) do
      make_dirs(dir, path)
      lib.write(dir .. "/" .. path, text)
    end
    for _, d in ipairs(task.docs or {}) do lib.write(dir .. "/" .. d[1], d[2]) end
  end

  function env.oracle(task, ctx) task.solve(ctx) end

  -- Every request must have got some answer before the details are looked at.
  function env.verify(task, world)
    for i = 1, #task.requests do
      local a = world.answers[i]
      if not a or a == "" then return 0, "no answer to request " .. i end
    end
    local ok, why = task.check(world)
    return ok and 1 or 0, why or (ok and "" or "the world is not as asked")
  end

  return env
end

return family
