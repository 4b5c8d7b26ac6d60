/* fuzz_schema.c - arguments against every tool's schema: a verdict, always with a sentence. */
#include <stdint.h>
#include <stdlib.h>

#include "tools/schema.h"
#include "tools/tool.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct tool *t;
    for (unsigned i = 0; (t = tool_at(i)); i++) {
        struct err err = {0};
        json_t *args = NULL;
        int rc = schema_parse_args(t->name, t->schema, str_of(data, size), &args, &err);
        if (rc < 0 && err.text[0] == '\0')
            abort();
        if (rc == 0 && !json_is_object(args))
            abort();
        json_decref(args);
    }
    /* The input as a schema: any JSON may stand there. */
    struct err err = {0};
    json_t *schema = NULL;
    if (json_read(&schema, str_of(data, size), &err) == 0) {
        json_t *args = json_pack("{s:i, s:[s, n], s:{s:b}}", "a", 1, "b", "x", "c", "d", 1);
        int rc = schema_check("t", schema, args, &err);
        if (rc < 0 && err.text[0] == '\0')
            abort();
        json_decref(args);
    }
    json_decref(schema);
    return 0;
}
