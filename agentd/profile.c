/* profile.c - the table of profiles. */
#include "agentd/profile.h"

#define MODEL_SAMPLING {.temperature = -1, .top_p = -1, .min_p = -1, .top_k = -1}
#define GREEDY {.temperature = 0, .top_p = 1, .min_p = 0, .top_k = 0}

static const struct profile profiles[] = {
    {
        .name = "demo",
        .summary = "the small model that ships here: a few tools, short answers",
        .system = "You are agentd, a careful assistant. Use the tools, then answer in plain "
                  "words.",
        .tools = "demo",
        .policy = "coding",
        .thinking = true,
        .sampling = GREEDY,
        .budget = {.max_steps = 12, .max_tokens = 4096, .max_seconds = 600, .think_max = 768,
                   .reserve = 256},
        .first = STRATEGY_DISCARD_TOOLS,
        .then = STRATEGY_DISCARD_ALL,
    },
    {
        .name = "code",
        .summary = "software work in a folder: shell, editor, plan, notes",
        .system = "You are a software engineer working in the folder /workspace. Read before "
                  "you change, run what you change, and say what you did in few words.",
        .tools = "code",
        .policy = "coding",
        .thinking = true,
        .sampling = MODEL_SAMPLING,
        .budget = {.max_steps = 200, .max_tokens = 400000, .max_seconds = 14400,
                   .think_max = 32000, .reserve = 4096},
        .first = STRATEGY_SUMMARY,
        .then = STRATEGY_DISCARD_ALL,
    },
    {
        .name = "research",
        .summary = "search, read, compute, cite",
        .system = "You are a researcher. Search, open and read sources before you claim, and "
                  "cite them as the pages show. Stop when the evidence is enough.",
        .tools = "research",
        .policy = "research",
        .thinking = true,
        .sampling = MODEL_SAMPLING,
        .budget = {.max_steps = 300, .max_tokens = 600000, .max_seconds = 14400,
                   .think_max = 32000, .reserve = 8192},
        .first = STRATEGY_DISCARD_TOOLS,
        .then = STRATEGY_DISCARD_ALL,
    },
    {
        .name = "math",
        .summary = "reasoning with a Python interpreter",
        .system = "Solve the problem. Use Python to compute and to check, then state the "
                  "answer.",
        .tools = "math",
        .policy = "computation",
        .thinking = true,
        .sampling = MODEL_SAMPLING,
        .budget = {.max_steps = 40, .max_tokens = 200000, .max_seconds = 7200, .reserve = 4096},
        .first = STRATEGY_DISCARD_TOOLS,
        .then = STRATEGY_DISCARD_ALL,
    },
    {
        .name = "general",
        .summary = "every tool",
        .system = "You are a helpful assistant with tools. Use them when they help, and answer "
                  "plainly.",
        .tools = "general",
        .policy = "coding",
        .thinking = true,
        .sampling = MODEL_SAMPLING,
        .budget = {.max_steps = 100, .max_tokens = 200000, .max_seconds = 7200,
                   .think_max = 32000, .reserve = 4096},
        .first = STRATEGY_DISCARD_TOOLS,
        .then = STRATEGY_DISCARD_ALL,
    },
    {
        .name = "speciale",
        .summary = "long reasoning without tools",
        .system = "",
        .policy = "default",
        .thinking = true,
        .sampling = MODEL_SAMPLING,
        .budget = {.max_steps = 1, .max_tokens = 131072, .max_seconds = 86400, .reserve = 8192},
        .first = STRATEGY_NONE,
        .then = STRATEGY_NONE,
    },
    {
        .name = "bench-min",
        .summary = "shell and editor only, as in published benchmark runs",
        .system = "You are a software engineer. Solve the task in the folder /workspace.",
        .tools = "bench-min",
        .policy = "coding",
        .thinking = true,
        .sampling = MODEL_SAMPLING,
        .budget = {.max_steps = 200, .max_tokens = 400000, .max_seconds = 14400,
                   .reserve = 4096},
        .first = STRATEGY_NONE,
        .then = STRATEGY_NONE,
    },
    {
        .name = "chat",
        .summary = "plain conversation without tools",
        .system = "You are a helpful assistant.",
        .policy = "default",
        .thinking = false,
        .sampling = MODEL_SAMPLING,
        .budget = {.max_steps = 1, .max_tokens = 16384, .max_seconds = 3600, .reserve = 0},
        .first = STRATEGY_NONE,
        .then = STRATEGY_NONE,
    },
};

static const char *const strategies[STRATEGY_N] = {
    [STRATEGY_NONE] = "none",
    [STRATEGY_DISCARD_TOOLS] = "discard-tools",
    [STRATEGY_DISCARD_ALL] = "discard-all",
    [STRATEGY_SUMMARY] = "summary",
};

const char *strategy_name(enum strategy s)
{
    return strategies[s];
}

bool strategy_parse(struct str name, enum strategy *out)
{
    for (unsigned i = 0; i < STRATEGY_N; i++)
        if (str_is(name, strategies[i])) {
            *out = (enum strategy)i;
            return true;
        }
    return false;
}

const struct profile *profile_find(struct str name)
{
    for (unsigned i = 0; i < ARRAY_LEN(profiles); i++)
        if (str_is(name, profiles[i].name))
            return &profiles[i];
    return NULL;
}

const struct profile *profile_at(unsigned i)
{
    return i < ARRAY_LEN(profiles) ? &profiles[i] : NULL;
}
