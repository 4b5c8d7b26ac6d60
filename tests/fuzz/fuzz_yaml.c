/* fuzz_yaml.c - configuration text from anywhere never crashes the reader. */
#include <stddef.h>
#include <stdint.h>

#include "agentd/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct err err = {0};
    struct yaml *y = NULL;
    if (yaml_read(&y, "fuzz", str_of(data, n), &err) == 0)
        yaml_close(y);
    return 0;
}
