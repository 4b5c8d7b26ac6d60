/* fuzz_policy.c - policies from anywhere are read or refused; what is read makes a sound spec. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "agentd/policy.h"
#include "sandbox/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct err err = {0};
    struct policy *p = NULL;
    static struct sandbox_spec spec;
    if (policy_read(&p, "fuzz.yaml", str_of(data, n), &err) < 0)
        return 0;
    if (p->spec.require == SANDBOX_NONE ||
        (p->spec.net == SANDBOX_NET_HOST && !p->spec.net_host_known))
        abort();
    (void)!policy_spec(p, "/tmp", &spec, &err);
    policy_free(p);
    return 0;
}
