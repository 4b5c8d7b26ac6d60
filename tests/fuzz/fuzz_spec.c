/* fuzz_spec.c - a launch request is any bytes: what passes the check has only plain fields. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sandbox/plan.h"
#include "sandbox/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct sandbox_spec spec;
    static struct plan plan;
    static struct probe host = {.root = true, .landlock = 7, .limits.kind = LIMITS_V2};
    struct sandbox_refusal r;
    struct err err = {0};
    memset(&spec, 0, sizeof spec);
    memcpy(&spec, data, n < sizeof spec ? n : sizeof spec);
    if (spec_check(&spec, &err) < 0)
        return 0;
    for (uint32_t i = 0; i < spec.n_binds; i++)
        if (!spec_plain_path(spec.bind[i].host) || strstr(spec.bind[i].inside, ".."))
            abort();
    if (plan_build(&plan, &spec, &host, &r, &err) == 0)
        plan_drop(&plan);
    return 0;
}
