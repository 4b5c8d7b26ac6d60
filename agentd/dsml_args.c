/*
 * dsml_args.c - the arguments of one call, as JSON text that grows parameter by parameter. A
 * value that its schema contradicts is coerced when only one reading is possible; it is never
 * guessed, and what cannot be read is a fault, not an empty object.
 */
#include <string.h>

#include "agentd/dsml_in.h"
#include "agentd/jsontext.h"

static void tell_args(struct dsml *d)
{
    struct str more = str_sub(buf_view(&d->args), d->args_told, SIZE_MAX);
    if (more.n && d->ev.call_delta)
        d->ev.call_delta(d->arg, d->n_started - 1, more);
    d->args_told = d->args.len;
}

void dsml_call_begin(struct dsml *d, struct str name)
{
    dsml_flush(d);
    buf_reset(&d->name);
    buf_reset(&d->args);
    buf_reset(&d->keys);
    d->args_told = 0;
    d->n_keys = 0;
    buf_str(&d->name, name);
    buf_putc(&d->args, '{');
    d->n_started++;
    if (d->ev.call_start)
        d->ev.call_start(d->arg, d->n_started - 1, buf_view(&d->name));
}

static unsigned types_of(const struct dsml *d, struct str key)
{
    return d->o.types ? d->o.types(d->arg, buf_view(&d->name), key) : 0;
}

static struct str key_at(const struct dsml *d, uint32_t i)
{
    size_t from = i ? d->key_end[i - 1] : 0;
    return str_sub(buf_view(&d->keys), from, d->key_end[i] - from);
}

bool dsml_param_begin(struct dsml *d, struct str key, bool string)
{
    for (uint32_t i = 0; i < d->n_keys; i++) {
        if (str_eq(key_at(d, i), key)) {
            dsml_fault(d, true, DSML_PARAMETER_DUPLICATE,
                       "A parameter was given twice in one call. Give each parameter once.");
            return false;
        }
    }
    if (d->n_keys == LIMIT_PARAMS_PER_CALL) {
        dsml_fault(d, true, DSML_TOO_LONG, "The call has too many parameters.");
        return false;
    }
    buf_puts(&d->args, d->n_keys ? ", " : "");
    jsontext_quote(&d->args, key);
    buf_puts(&d->args, ": ");
    buf_str(&d->keys, key);
    d->key_end[d->n_keys++] = (uint32_t)d->keys.len;
    unsigned types = types_of(d, key);
    d->value_string = string;
    d->value_streams = string && (types == 0 || (types & DSML_STRING));
    buf_reset(&d->value);
    if (d->value_streams) {
        buf_putc(&d->args, '"');
        tell_args(d);
    }
    return true;
}

void dsml_param_add(struct dsml *d, struct str window)
{
    buf_truncate(&d->value, d->value_streams ? 0 : d->value.len);
    dsml_spell(&d->value, window);
    if (d->value_streams) {
        jsontext_escape(&d->args, buf_view(&d->value));
        tell_args(d);
    }
    size_t judged = d->value_streams ? 0 : d->value.len;
    if (d->args.len + judged > LIMIT_ARGUMENTS_BYTES)
        dsml_fault(d, true, DSML_TOO_LONG,
                   "The arguments are too long. Split the work into several calls.");
}

/* The type bits of canonical JSON text. */
static unsigned types_in(struct str v)
{
    switch (jsontext_kind(v)) {
    case JSONTEXT_NULL:
        return DSML_NULL;
    case JSONTEXT_BOOL:
        return DSML_BOOLEAN;
    case JSONTEXT_STRING:
        return DSML_STRING;
    case JSONTEXT_ARRAY:
        return DSML_ARRAY;
    case JSONTEXT_OBJECT:
        return DSML_OBJECT;
    case JSONTEXT_NUMBER:
        for (size_t i = 0; i < v.n; i++)
            if (v.p[i] == '.' || v.p[i] == 'e')
                return DSML_NUMBER;
        return DSML_NUMBER | DSML_INTEGER;
    case JSONTEXT_NONE:
        break;
    }
    return 0;
}

bool dsml_param_end(struct dsml *d)
{
    if (d->value_streams) {
        buf_putc(&d->args, '"');
        tell_args(d);
        return true;
    }
    unsigned types = types_of(d, key_at(d, d->n_keys - 1)), found = 0;
    struct str v = buf_view(&d->value);
    struct buf canonical;
    buf_init(&canonical, 0);
    struct err why;
    int rc = jsontext_rewrite(&canonical, v, &why);
    if (rc == 0)
        found = types_in(buf_view(&canonical));
    else if (rc == -ERR_NOMEM)
        d->value.failed = ERR_NOMEM; /* told by dsml_feed; not the model's mistake */
    bool fits = found && (types == 0 || (types & found));
    bool ok = true;
    if (d->value_string) {
        if (fits) {
            dsml_note(d, "a quoted value was read as the type that its schema asks for");
            buf_str(&d->args, v);
        } else {
            jsontext_quote(&d->args, v); /* the schema check will answer the model */
        }
    } else if (types == DSML_STRING && !fits) {
        dsml_note(d, "an unquoted value was read as the string that its schema asks for");
        jsontext_quote(&d->args, v);
    } else if (found) {
        buf_str(&d->args, v);
    } else {
        ok = false;
    }
    buf_done(&canonical);
    if (ok)
        tell_args(d);
    else
        dsml_fault(d, true, DSML_ARGUMENTS_NOT_JSON,
                   "A parameter with string=\"false\" must be valid JSON. Use string=\"true\" "
                   "for text.");
    return ok;
}

void dsml_call_finish(struct dsml *d)
{
    buf_putc(&d->args, '}');
    tell_args(d);
    d->n_calls++;
    if (d->ev.call_end && !d->args.failed)
        d->ev.call_end(d->arg, d->n_started - 1, buf_view(&d->name), buf_view(&d->args));
}
