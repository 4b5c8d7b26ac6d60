/*
 * json.h - jansson with our limits and our errors; the only header that includes it.
 *
 * Input is strict: UTF-8, no duplicate keys, no NUL, no lone surrogates, bounded size and
 * depth. Getters take the object and a key and answer with an error that names the key, so
 * that a protocol handler reads as a list of its fields.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

/* Parses one whole value of any type; *out is owned (json_decref). */
NODISCARD int json_read(json_t **out, struct str text, struct err *err);
/* Compact UTF-8 text appended to `b`, key order kept. */
NODISCARD int json_write(const json_t *v, struct buf *b, struct err *err);
/* The same with an indent of two, for people. */
NODISCARD int json_write_pretty(const json_t *v, struct buf *b, struct err *err);

/* Optional fields: absent or null leaves *out alone; a wrong type is -ERR_PARSE. */
NODISCARD int json_opt_str(const json_t *o, const char *key, struct str *out, struct err *err);
NODISCARD int json_opt_int(const json_t *o, const char *key, int64_t lo, int64_t hi,
                           int64_t *out, struct err *err);
NODISCARD int json_opt_num(const json_t *o, const char *key, double *out, struct err *err);
NODISCARD int json_opt_bool(const json_t *o, const char *key, bool *out, struct err *err);
NODISCARD int json_opt_obj(json_t *o, const char *key, json_t **out, struct err *err);
NODISCARD int json_opt_arr(json_t *o, const char *key, json_t **out, struct err *err);
/* Required: absent is -ERR_PARSE too. Views are borrowed from the object. */
NODISCARD int json_need_str(const json_t *o, const char *key, struct str *out, struct err *err);
NODISCARD int json_need_int(const json_t *o, const char *key, int64_t lo, int64_t hi,
                            int64_t *out, struct err *err);

/* A string value from bytes; invalid UTF-8 and NUL become U+FFFD. NULL only without memory. */
json_t *json_text(struct str s);
/* The text of a string value; empty for anything else. */
struct str json_view(const json_t *v);

#endif
