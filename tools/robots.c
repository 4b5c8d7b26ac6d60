/* robots.c - one pass over the file; nothing is stored. */
#include "tools/robots.h"

#include <string.h>
#include <strings.h>

/* "Key: value # comment" split; false for other lines. */
static bool split_line(struct str line, struct str *key, struct str *value)
{
    size_t hash = str_find(line, STR("#"), 0);
    line = str_sub(line, 0, hash == STR_NONE ? line.n : hash);
    size_t colon = str_find(line, STR(":"), 0);
    if (colon == STR_NONE)
        return false;
    *key = str_trim(str_sub(line, 0, colon));
    *value = str_trim(str_sub(line, colon + 1, line.n));
    return true;
}

static bool is_key(struct str key, const char *want)
{
    return key.n == strlen(want) && strncasecmp(key.p, want, key.n) == 0;
}

/* Greedy match of a pattern with '*' against the start of a path; '$' binds to the end. */
static bool path_matches(struct str pattern, struct str path)
{
    bool bound = pattern.n && pattern.p[pattern.n - 1] == '$';
    if (bound)
        pattern.n--;
    size_t p = 0, s = 0, star = STR_NONE, mark = 0;
    while (p < pattern.n || (bound && s < path.n)) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = p++;
            mark = s;
        } else if (p < pattern.n && s < path.n && pattern.p[p] == path.p[s]) {
            p++;
            s++;
        } else if (star != STR_NONE && mark < path.n) {
            p = star + 1;
            s = ++mark;
        } else {
            return false;
        }
    }
    return true;
}

/* The verdict of the groups that name `agent`; *named says whether there were any. */
static bool allowed_by(struct str rules, struct str agent, struct str path, bool *named)
{
    struct str rest = rules, line, key, value;
    bool ours = false, in_names = false, allow = true;
    size_t best = 0;
    *named = false;
    while (str_split(&rest, '\n', &line)) {
        if (!split_line(line, &key, &value))
            continue;
        if (is_key(key, "user-agent")) {
            bool match = value.n == agent.n && strncasecmp(value.p, agent.p, agent.n) == 0;
            ours = match || (ours && in_names);
            in_names = true;
            *named |= match;
            continue;
        }
        bool yes = is_key(key, "allow"), no = is_key(key, "disallow");
        if (!yes && !no)
            continue;
        in_names = false;
        if (!ours || value.n == 0 || !path_matches(value, path))
            continue;
        if (value.n > best || (value.n == best && yes)) {
            best = value.n;
            allow = yes;
        }
    }
    return allow;
}

bool robots_allow(struct str rules, struct str agent, struct str path)
{
    bool named;
    if (str_is(path, "/robots.txt"))
        return true;
    rules = str_sub(rules, 0, ROBOTS_BYTES);
    bool allow = allowed_by(rules, agent, path, &named);
    return named ? allow : allowed_by(rules, STR("*"), path, &named);
}
