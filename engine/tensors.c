/* tensors.c - the list and its index by name. */
#include "engine/tensors.h"

#include <string.h>

#include "base/limits.h"
#include "engine/hash.h"

void tensors_init(struct tensors *t)
{
    *t = (struct tensors){0};
    arena_init(&t->names, 0);
}

void tensors_done(struct tensors *t)
{
    mem_free(t->item);
    mem_free(t->slot);
    arena_done(&t->names);
    *t = (struct tensors){0};
}

/* The slot of the name, or the empty one where it belongs. */
static uint32_t slot_of(const struct tensors *t, struct str name)
{
    uint32_t i = (uint32_t)hash64(name.p, name.n) & t->mask;
    while (t->slot[i] >= 0 && !str_eq(str_c(t->item[t->slot[i]].name), name))
        i = (i + 1) & t->mask;
    return i;
}

/* Half full at most, so that a search for what is absent stays short. */
static int grow(struct tensors *t, struct err *err)
{
    uint32_t cap = t->cap ? t->cap * 2 : 256;
    void *item = mem_resize(t->item, cap, sizeof *t->item);
    if (!item)
        return err_nomem(err);
    t->item = item;
    int32_t *slot = mem_resize(t->slot, (size_t)cap * 2, sizeof *slot);
    if (!slot)
        return err_nomem(err);
    memset(slot, 0xff, (size_t)cap * 2 * sizeof *slot);
    t->slot = slot;
    t->cap = cap;
    t->mask = cap * 2 - 1;
    for (uint32_t i = 0; i < t->n; i++)
        t->slot[slot_of(t, str_c(t->item[i].name))] = (int32_t)i;
    return 0;
}

/* Names end up in sentences and on terminals. */
static bool is_plain(struct str name)
{
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] <= ' ' || name.p[i] > '~')
            return false;
    return name.n > 0;
}

int tensors_add(struct tensors *t, struct str name, const struct tensor *x, struct err *err)
{
    if (name.n > TENSOR_NAME_MAX)
        return err_set(err, ERR_PARSE, "a tensor name has %zu bytes; %d are allowed", name.n,
                       TENSOR_NAME_MAX);
    if (!is_plain(name))
        return err_set(err, ERR_PARSE, "tensor %u has a name that is not printable ASCII",
                       t->n);
    if (t->n == LIMIT_TENSORS)
        return err_set(err, ERR_LIMIT, "more than %u tensors", (unsigned)LIMIT_TENSORS);
    int rc = t->n == t->cap ? grow(t, err) : 0;
    if (rc < 0)
        return rc;
    uint32_t slot = slot_of(t, name);
    if (t->slot[slot] >= 0)
        return err_set(err, ERR_PARSE, "tensor '%.*s' is listed twice", STR_ARG(name));
    char *copy = arena_strdup(&t->names, name);
    if (!copy)
        return err_nomem(err);
    t->item[t->n] = *x;
    t->item[t->n].name = copy;
    t->slot[slot] = (int32_t)t->n++;
    return 0;
}

struct tensor *tensors_find(const struct tensors *t, const char *name)
{
    if (!t->n)
        return NULL;
    int32_t i = t->slot[slot_of(t, str_c(name))];
    return i < 0 ? NULL : &t->item[i];
}
