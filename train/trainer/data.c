/* data.c - see data.h. Files: NAME.ids u16, NAME.msk u8, NAME.off u32 (n + 1), NAME.fam u8. */
#include "data.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const void *map(const char *dir, const char *name, const char *ext, size_t *n)
{
    char path[512];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s.%s", dir, name, ext);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) || st.st_size == 0) {
        fprintf(stderr, "data: cannot read %s\n", path);
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    void *p = malloc((size_t)st.st_size);
    size_t got = 0;
    while (p && got < (size_t)st.st_size) {
        ssize_t r = read(fd, (char *)p + got, (size_t)st.st_size - got);
        if (r <= 0)
            break;
        got += (size_t)r;
    }
    close(fd);
    *n = got;
    return p;
}

int split_open(struct split *s, const char *dir, const char *name)
{
    size_t ni = 0, nm = 0, no = 0, nf = 0;
    memset(s, 0, sizeof *s);
    s->ids = map(dir, name, "ids", &ni);
    s->msk = map(dir, name, "msk", &nm);
    s->off = map(dir, name, "off", &no);
    s->fam = map(dir, name, "fam", &nf);
    s->n = (int)(no / 4) - 1;
    if (!s->ids || !s->msk || !s->off || !s->fam || s->n < 1 || ni != 2 * nm ||
        s->off[s->n] != nm || nf != (size_t)s->n) {
        fprintf(stderr, "data: %s/%s: missing or inconsistent\n", dir, name);
        split_close(s);
        return -1;
    }
    s->bytes = no;
    s->keep4 = 1;
    int p = CTX;
    for (int i = 1; i < s->n; i++) { /* common prefix of all sequences */
        const uint16_t *a = s->ids + s->off[0], *b = s->ids + s->off[i];
        int la = (int)(s->off[1] - s->off[0]), lb = (int)(s->off[i + 1] - s->off[i]), k = 0;
        while (k < p && k < la && k < lb && a[k] == b[k])
            k++;
        p = k;
    }
    s->prefix = p > 16 && p < CTX ? p - 1 : 0;
    return 0;
}

void split_close(struct split *s)
{
    free((void *)(uintptr_t)s->ids);
    free((void *)(uintptr_t)s->msk);
    free((void *)(uintptr_t)s->off);
    free((void *)(uintptr_t)s->fam);
    memset(s, 0, sizeof *s);
}

static void put_rows(struct batch *b, const uint16_t *t, const uint8_t *m, int from, int to, int len)
{
    for (int i = from; i < to; i++) {
        int r = b->T++;
        b->tok[r] = t[i];
        b->pos[r] = i;
        b->nxt[r] = i + 1 < len ? t[i + 1] : t[i];
        b->loss[r] = i + 1 < len && m[i + 1];
    }
}

/* Earlier turns stand in a sequence without their reasoning and are not in the mask; their calls
 * and answers, from "</think>" (token reopen) to the end of sentence, teach copying all the same. */
static void reopen_turns(struct batch *b, int from, int reopen)
{
    int on = 0;
    for (int r = from; r < b->T; r++) {
        if (b->tok[r] == 1)
            on = 0;
        else if (b->tok[r] == reopen)
            on = 1;
        b->loss[r] |= (uint8_t)on;
    }
}

static void open_seg(struct batch *b, int fam)
{
    b->seg[b->nseg] = b->T;
    b->fam[b->nseg++] = (uint8_t)fam;
}

/* a sequence at random; families of long sequences fewer times, those of hard ones more often */
static int pick(const struct split *s, uint64_t *rng)
{
    int i = (int)rng_below(rng, (uint32_t)s->n);
    double boost = (double)rng_below(rng, 1000000) / 1e6;
    double keep = (double)rng_below(rng, 1000000) / 1e6;
    int want = 0;
    for (int f = 3; f > 0 && !want; f--)
        if ((boost -= s->boost[f]) < 0)
            want = f;
    for (int k = 0; want && s->fam[i] != want && k < 64; k++)
        i = (int)rng_below(rng, (uint32_t)s->n);
    if (s->fam[i] == 4 && keep >= s->keep4)
        for (int k = 0; s->fam[i] == 4 && k < 64; k++)
            i = (int)rng_below(rng, (uint32_t)s->n);
    return i;
}

void batch_fill(struct batch *b, const struct split *s, int target, int strip, int reopen,
                uint64_t *rng, int *at)
{
    b->T = b->nseg = b->prefix = 0;
    for (int tries = 0; b->nseg < SEGMAX - 1 && tries < 4000; tries++) {
        if (at && *at >= s->n)
            break;
        int i = at ? *at : pick(s, rng);
        const uint16_t *t = s->ids + s->off[i];
        const uint8_t *m = s->msk + s->off[i];
        int len = (int)(s->off[i + 1] - s->off[i]), first = b->nseg == 0;
        if (len > CTX || len <= s->prefix + 1) {
            if (at)
                ++*at;
            continue;
        }
        /* the last token is never an input that matters */
        int rows = len - 1 - s->prefix + (first && !strip ? s->prefix : 0);
        if (b->T + rows > target && !first)
            break;
        if (first && s->prefix && !strip) {
            open_seg(b, 255);
            put_rows(b, t, m, 0, s->prefix, len);
            b->prefix = s->prefix;
        }
        open_seg(b, s->fam[i]);
        int from = b->T;
        put_rows(b, t, m, s->prefix, len - 1, len);
        if (reopen)
            reopen_turns(b, from, reopen);
        if (at)
            ++*at;
    }
    b->seg[b->nseg] = b->T;
}

/* a stretch, filler, the stretch again (level 0: several times, no filler) */
static int drill_repeat(uint16_t *t, uint8_t *m, int lo, int range, int level, uint64_t *rng)
{
    int sub = level < 1 || rng_below(rng, 3) ? range : 12 + (int)rng_below(rng, 60);
    int base = lo + (int)rng_below(rng, (uint32_t)(range - sub + 1)), n = 1;
    int len = 4 + (int)rng_below(rng, 60), fill = level < 1 ? 0 : (int)rng_below(rng, 60);
    for (int i = 0; i < len; i++)
        t[n++] = (uint16_t)(base + (int)rng_below(rng, (uint32_t)sub));
    for (int r = level < 1 ? 2 : 1; r > 0; r--) {
        for (int i = 0; i < fill; i++)
            t[n++] = (uint16_t)(lo + (int)rng_below(rng, (uint32_t)range));
        int at = level < 1 ? 0 : (int)rng_below(rng, (uint32_t)len / 2);
        for (int i = at; i < len; i++) {
            m[n] = i > at + (sub < range ? 3 : 0);
            t[n++] = t[1 + i];
        }
    }
    return n;
}

/* pairs "mark key mark value"; then keys are asked for, and the value and a mark must follow */
static int drill_lookup(uint16_t *t, uint8_t *m, int lo, int range, uint64_t *rng)
{
    int pairs = 2 + (int)rng_below(rng, 14), start[16], kl[16], vl[16], n = 1;
    int s1 = lo + (int)rng_below(rng, (uint32_t)range);
    int s2 = lo + (int)rng_below(rng, (uint32_t)range);
    for (int p = 0; p < pairs; p++) {
        t[n++] = (uint16_t)s1;
        start[p] = n;
        kl[p] = 1 + (int)rng_below(rng, 4);
        vl[p] = 1 + (int)rng_below(rng, 8);
        for (int i = 0; i < kl[p]; i++)
            t[n++] = (uint16_t)(lo + (int)rng_below(rng, (uint32_t)range));
        t[n++] = (uint16_t)s2;
        for (int i = 0; i < vl[p]; i++)
            t[n++] = (uint16_t)(lo + (int)rng_below(rng, (uint32_t)range));
    }
    for (int q = 0; q < 4; q++) {
        int p = (int)rng_below(rng, (uint32_t)pairs), e = kl[p] + 1 + vl[p];
        t[n++] = (uint16_t)s1;
        for (int i = 0; i < e; i++) {
            m[n] = i > 0;
            t[n++] = t[start[p] + i];
        }
        m[n] = 1;
    }
    t[n++] = (uint16_t)s1;
    return n;
}

/* "mark numbers mark filler mark numbers mark": digits in their byte tokens, separated like text;
 * from level 4 on also a few long numbers of two digits only, where no digit tells its place;
 * from level 5 on also lists in which the same few numbers stand again and again */
static int drill_numbers(uint16_t *t, uint8_t *m, int lo, int range, int level, uint64_t *rng)
{
    enum { ZERO = 50, COMMA = 46, BLANK = 34 }; /* bytes are ids 2 + byte in our tokenizers */
    int s1 = lo + (int)rng_below(rng, (uint32_t)range), n = 1, count = 2 + (int)rng_below(rng, 14);
    int s2 = lo + (int)rng_below(rng, (uint32_t)range), comma = (int)rng_below(rng, 2);
    int most = 1 + (int)rng_below(rng, 6), fill = (int)rng_below(rng, 60);
    uint32_t few = level >= 4 && !rng_below(rng, 3), zero = 0, one = 1;
    if (few) {
        count = 1 + count % 3;
        most = 4 + (int)rng_below(rng, 16);
        if (rng_below(rng, 2))
            zero = rng_below(rng, 10), one = rng_below(rng, 10);
    }
    int kinds = level >= 5 && !rng_below(rng, 3) ? 2 + (int)rng_below(rng, 4) : 0;
    if (kinds) {
        count = 3 + count % 5;
        most = 1 + most % 4;
    }
    t[n++] = (uint16_t)s1;
    int from = n, begin[20], end[20];
    for (int i = 0; i < count; i++) {
        int like = kinds && i >= kinds ? (int)rng_below(rng, (uint32_t)i) : -1;
        begin[i] = n;
        for (int k = like < 0 ? 0 : begin[like]; like >= 0 && k < end[like]; k++)
            t[n++] = t[k];
        for (int d = 1 + (int)rng_below(rng, (uint32_t)most); like < 0 && d > 0; d--)
            t[n++] = (uint16_t)(ZERO + (int)(!few ? rng_below(rng, 10) : rng_below(rng, 2) ? one : zero));
        end[i] = n;
        if (i + 1 < count && comma)
            t[n++] = COMMA;
        if (i + 1 < count)
            t[n++] = BLANK;
    }
    t[n++] = (uint16_t)s2;
    int to = n;
    for (int i = 0; i < fill; i++)
        t[n++] = (uint16_t)(lo + (int)rng_below(rng, (uint32_t)range));
    t[n++] = (uint16_t)s1;
    for (int i = from; i < to; i++) {
        m[n] = 1;
        t[n++] = t[i];
    }
    return n;
}

/* The first eight ids are control tokens; the rest serve as symbols without meaning. */
void batch_drill(struct batch *b, int vocab, int target, int level, uint64_t *rng)
{
    uint16_t t[512];
    uint8_t m[512];
    b->T = b->nseg = b->prefix = 0;
    t[0] = 0;
    while (b->nseg < SEGMAX - 1) {
        int lo = 8, range = vocab - 8, n;
        memset(m, 0, sizeof m);
        if (level >= 3 && vocab >= 300 && rng_below(rng, 2))
            n = drill_numbers(t, m, lo, range, level, rng);
        else if (level >= 2 && rng_below(rng, 2))
            n = drill_lookup(t, m, lo, range, rng);
        else
            n = drill_repeat(t, m, lo, range, level, rng);
        if (b->T + n - 1 > target)
            break;
        open_seg(b, 0);
        put_rows(b, t, m, 0, n - 1, n);
    }
    b->seg[b->nseg] = b->T;
}
