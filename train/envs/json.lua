-- json.lua - as much JSON as the harness and the environments exchange, one line each way.
local json = {}

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function quote(s)
  return '"' .. s:gsub('[%c"\\]', function(c)
    return escapes[c] or ("\\u%04x"):format(c:byte())
  end) .. '"'
end

-- A table with [1] (or marked as a list) is an array; an empty table is an object.
function json.write(v)
  local t = type(v)
  if t == "string" then return quote(v) end
  if t == "number" or t == "boolean" then return tostring(v) end
  if t == "nil" then return "null" end
  local out = {}
  if v[1] ~= nil or v.is_list then
    for i, x in ipairs(v) do out[i] = json.write(x) end
    return "[" .. table.concat(out, ",") .. "]"
  end
  local keys = {}
  for k in pairs(v) do keys[#keys + 1] = k end
  table.sort(keys)
  for i, k in ipairs(keys) do out[i] = quote(k) .. ":" .. json.write(v[k]) end
  return "{" .. table.concat(out, ",") .. "}"
end

local value

local function space(s, i) return s:find("[^ \t\r\n]", i) or #s + 1 end

local function text(s, i)
  local out, at = {}, i + 1
  while true do
    local a = s:find('["\\]', at)
    if not a then error("unterminated string") end
    out[#out + 1] = s:sub(at, a - 1)
    if s:sub(a, a) == '"' then return table.concat(out), a + 1 end
    local c = s:sub(a + 1, a + 1)
    if c == "u" then
      local n = tonumber(s:sub(a + 2, a + 5), 16)
      at = a + 6
      if n >= 0xD800 and n < 0xDC00 then
        n = 0x10000 + ((n - 0xD800) << 10) + (tonumber(s:sub(a + 8, a + 11), 16) - 0xDC00)
        at = a + 12
      end
      out[#out + 1] = utf8.char(n)
    else
      out[#out + 1] = ({ n = "\n", t = "\t", r = "\r", b = "\b", f = "\f" })[c] or c
      at = a + 2
    end
  end
end

local function members(s, i, close, read)
  i = space(s, i + 1)
  while s:sub(i, i) ~= close do
    i = space(s, read(i))
    if s:sub(i, i) == "," then i = space(s, i + 1) end
    if i > #s then error("unterminated value") end
  end
  return i + 1
end

function value(s, i)
  i = space(s, i)
  local c = s:sub(i, i)
  if c == '"' then return text(s, i) end
  if c == "[" then
    local out = {}
    i = members(s, i, "]", function(at)
      local v, e = value(s, at)
      out[#out + 1] = v
      return e
    end)
    return out, i
  end
  if c == "{" then
    local out = {}
    i = members(s, i, "}", function(at)
      local k, e = text(s, at)
      out[k], e = value(s, space(s, e) + 1)
      return e
    end)
    return out, i
  end
  local word = s:match("^[%w+.-]+", i) or error("not JSON at " .. i)
  local known = { ["true"] = true, ["false"] = false }
  if known[word] ~= nil then return known[word], i + #word end
  if word == "null" then return nil, i + 4 end
  return math.tointeger(word) or tonumber(word), i + #word
end

function json.read(s) return (value(s, 1)) end

return json
