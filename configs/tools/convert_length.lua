-- convert_length.lua: an example of a tool that computes in Lua, without files or network.
-- Copy it, change it, and name its folder in agentd.yaml (agent: tools:). A policy must allow
-- it by name like any other tool.

local metres = {
    mm = 0.001, cm = 0.01, m = 1, km = 1000,
    inch = 0.0254, foot = 0.3048, yard = 0.9144, mile = 1609.344,
}

tool = {
    name = "convert_length",
    description = "Converts a length from one unit to another.",
    parameters = {
        type = "object",
        properties = {
            value = { type = "number" },
            from = { type = "string", enum = { "mm", "cm", "m", "km", "inch", "foot", "yard", "mile" } },
            to = { type = "string", enum = { "mm", "cm", "m", "km", "inch", "foot", "yard", "mile" } },
        },
        required = { "value", "from", "to" },
        additionalProperties = false,
    },
}

function run(args)
    local result = args.value * metres[args.from] / metres[args.to]
    return string.format("%g %s = %.6g %s", args.value, args.from, result, args.to)
end
