/* id.c - identifiers from the kernel's random numbers; RFC 9562 version 7. */
#include "agentd/id.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/io.h"

static void random_bytes(void *p, size_t n)
{
    /* Up to 256 bytes getrandom() is never interrupted and never short. */
    ssize_t got = getrandom(p, n, 0);
    assert(got == (ssize_t)n);
    (void)got;
}

void id_new(char out[ID_TEXT])
{
    static int64_t last;
    int64_t ms = io_wall_ms();
    if (ms <= last)
        ms = last + 1; /* ids made in one process sort in the order they were made */
    last = ms;
    uint8_t b[16];
    random_bytes(b, sizeof b);
    for (int i = 0; i < 6; i++)
        b[i] = (uint8_t)((uint64_t)ms >> (40 - 8 * i));
    b[6] = (uint8_t)(0x70 | (b[6] & 0x0f));
    b[8] = (uint8_t)(0x80 | (b[8] & 0x3f));
    char *p = out;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *p++ = '-';
        p += snprintf(p, 3, "%02x", b[i]);
    }
}

void id_new_call(char out[ID_TEXT])
{
    static const char alphabet[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUV_-";
    enum { N = 26 };
    uint8_t b[N];
    random_bytes(b, sizeof b);
    memcpy(out, "call_", 5);
    for (int i = 0; i < N; i++)
        out[5 + i] = alphabet[b[i] % (sizeof alphabet - 1)];
    out[5 + N] = '\0';
}

bool id_valid(struct str s)
{
    if (s.n != ID_TEXT - 1)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        bool hex = (s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f');
        if (dash ? s.p[i] != '-' : !hex)
            return false;
    }
    return true;
}
