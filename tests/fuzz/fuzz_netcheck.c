/* fuzz_netcheck.c - request heads and TLS hellos from inside a cell never confuse the proxy. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/netcheck.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct netcheck_head head;
    struct err err = {0};
    char name[NETCHECK_HOST_MAX];
    if (netcheck_head(str_of(data, n), &head, &err) == 0 &&
        (strlen(head.host) >= sizeof head.host || head.size > n || head.port == 0))
        abort();
    if (netcheck_hello(str_of(data, n), name, &err) == 0 && strlen(name) >= sizeof name)
        abort();
    return 0;
}
