/* fuzz_patch.c - the patch grammar: any text is parsed or refused; what applies is sane. */
#include <stdint.h>
#include <stdlib.h>

#include "tools/patch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct patch p;
    struct err err = {0};
    /* The first half is the patch, the rest the file it is applied to. */
    size_t cut = size;
    for (size_t i = 0; i < size; i++)
        if (data[i] == 0) {
            cut = i;
            break;
        }
    struct str text = str_of(data, cut);
    struct str before = cut < size ? str_of(data + cut + 1, size - cut - 1) : STR("");
    if (patch_parse(&p, text, &err) < 0)
        return 0;
    for (unsigned i = 0; i < p.n; i++) {
        struct buf out;
        buf_init(&out, 1 << 20);
        int rc = p.file[i].kind == PATCH_ADD ? patch_added(&p.file[i], &out, &err)
                                             : patch_updated(&p.file[i], before, &out, &err);
        if (rc == 0 && out.len > size + before.n + 2)
            abort(); /* lines come from the patch or the file, each at most once */
        buf_done(&out);
    }
    return 0;
}
