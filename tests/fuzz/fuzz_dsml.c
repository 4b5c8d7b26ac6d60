/* fuzz_dsml.c - both readers of completions; the first byte chooses the options. */
#include "../agentd/dsml_trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct dsml_opts o = {.thinking = data[0] & 1, .tools = data[0] & 2, .tokens = data[0] & 4};
    struct str text = str_of(data + 1, size - 1);
    struct dsml_message m;
    struct err err;
    int rc = dsml_parse(&m, text, o.thinking, &err);
    MUST(rc == 0 || rc == -ERR_LIMIT || m.code != DSML_OK);
    dsml_message_done(&m);
    struct trace whole, cut;
    trace_run(&whole, &o, text, 0, 1);
    trace_run(&cut, &o, text, 1 + (data[0] >> 3), size);
    trace_same(&whole, &cut);
    trace_no_lost_arguments(&whole, text);
    trace_done(&whole);
    trace_done(&cut);
    return 0;
}
