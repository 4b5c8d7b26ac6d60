-- search_engine.lua: a search provider as a pair of Lua functions, for what search.yaml cannot
-- describe. It runs in the daemon's limited state (no files, no network, bounded time and
-- memory); what request() wants is fetched in the web cell under the policy's network rules.

local names = {web = "pages", news = "articles"}

-- What to fetch: url, and if need be headers and body. A list of results may be returned at
-- once instead: {{title = "...", url = "https://...", snippet = "...", date = "..."}, ...}
function request(query, count, source)
  local words = query:gsub("[^%w]", function(c) return ("%%%02X"):format(c:byte()) end)
  return {
    url = "https://search.example.org/" .. names[source] .. "?q=" .. words .. "&n=" .. count,
    headers = {Accept = "application/json"},
  }
end

-- The answer (JSON as a table, else the text) as a list of results.
function results(answer, query, count)
  local out = {}
  for i, hit in ipairs(answer.hits or {}) do
    out[i] = {title = hit.name, url = hit.href, snippet = hit.about, date = hit.when}
  end
  return out
end
