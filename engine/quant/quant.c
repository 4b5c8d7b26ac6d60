/* quant.c - the table of storage types. */
#include "engine/quant/quant.h"

#include <string.h>
#include <strings.h>

static const struct quant_traits *const table[] = {
    &quant_f32,  &quant_f16,  &quant_bf16, &quant_f8_e4m3, &quant_q8_0,   &quant_q4_0,
    &quant_q4_1, &quant_q5_0, &quant_q5_1, &quant_q2_k,    &quant_q3_k,   &quant_q4_k,
    &quant_q5_k, &quant_q6_k, &quant_iq4_nl, &quant_iq4_xs, &quant_mxfp4,
};

/* GGML's numbers, gaps included, so that a refusal can say what it refuses. */
static const char *const names[] = {
    [0] = "f32",      [1] = "f16",     [2] = "q4_0",    [3] = "q4_1",   [6] = "q5_0",
    [7] = "q5_1",     [8] = "q8_0",    [9] = "q8_1",    [10] = "q2_k",  [11] = "q3_k",
    [12] = "q4_k",    [13] = "q5_k",   [14] = "q6_k",   [15] = "q8_k",  [16] = "iq2_xxs",
    [17] = "iq2_xs",  [18] = "iq3_xxs", [19] = "iq1_s", [20] = "iq4_nl", [21] = "iq3_s",
    [22] = "iq2_s",   [23] = "iq4_xs", [24] = "i8",     [25] = "i16",   [26] = "i32",
    [27] = "i64",     [28] = "f64",    [29] = "iq1_m",  [30] = "bf16",  [34] = "tq1_0",
    [35] = "tq2_0",   [39] = "mxfp4",
};

const struct quant_traits *quant_traits(uint32_t type)
{
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (table[i]->type == type)
            return table[i];
    return NULL;
}

const struct quant_traits *quant_find(struct str name)
{
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (strlen(table[i]->name) == name.n &&
            strncasecmp(table[i]->name, name.p, name.n) == 0)
            return table[i];
    return NULL;
}

const struct quant_traits *const *quant_list(unsigned *n)
{
    *n = ARRAY_LEN(table);
    return table;
}

const char *quant_type_name(uint32_t type)
{
    if (type == QUANT_F8_E4M3)
        return quant_f8_e4m3.name;
    if (type >= QUANT_F8_E8M0)
        return type == QUANT_F8_E8M0 ? "f8_e8m0" : type == QUANT_OTHER ? "other" : NULL;
    return type < ARRAY_LEN(names) ? names[type] : NULL;
}

bool quant_row_bytes(const struct quant_traits *t, uint64_t n, uint64_t *bytes)
{
    if (n % t->block != 0)
        return false;
    return !__builtin_mul_overflow(n / t->block, (uint64_t)t->bytes, bytes);
}
