-- careful.lua: asks a person before commands that are hard to take back. Name it in a policy:
--
--     hooks: [/etc/agentd/hooks/careful.lua]
--
-- A hook sees each call after the policy's table and may only narrow what that decided. The
-- sandbox is what protects the machine; this protects the work in the workspace.

local risky = {
    {"rm%s+%-%a*[rR]", "removes a tree"},
    {"git%s+push", "publishes commits"},
    {"git%s+reset%s+%-%-hard", "throws changes away"},
    {"git%s+clean%s+%-%a*f", "removes files that git does not know"},
    {"dd%s+.*of=", "overwrites a file"},
    {"chmod%s+%-R", "changes the modes of a tree"},
}

function before_call(call)
    local command = call.tool == "bash" and call.args.command
    if type(command) ~= "string" then
        return
    end
    for _, entry in ipairs(risky) do
        if command:find(entry[1]) then
            return "ask", entry[2]
        end
    end
end
