-- count_lines.lua: an example of a tool that is a command in the session's cell. What it may
-- touch is the cell's matter; what it is called with is checked against `parameters` first.

tool = {
    name = "count_lines",
    description = "Counts the lines of the files below a folder whose names match a pattern.",
    parameters = {
        type = "object",
        properties = {
            folder = { type = "string", description = "Relative to the workspace" },
            pattern = { type = "string", description = "Such as *.c" },
        },
        required = { "folder", "pattern" },
        additionalProperties = false,
    },
}

function command(args)
    return "find " .. quote(args.folder) .. " -type f -name " .. quote(args.pattern)
        .. " -exec cat {} + | wc -l"
end
