/*
 * question.c - the tool ask_user: questions of the model to the person, as a durable event.
 *
 * The turn is parked while they wait: no job, no cell at work, no clock. The answers become
 * the call's result, so the reasoning so far is kept. Malformed questions are none of this
 * file's business: they go on as a call, whose result says what is wrong.
 */
#include <stdio.h>
#include <string.h>

#include "agentd/loop_in.h"

enum { ANSWER_MAX = 65536 };

static bool ids_differ(const json_t *questions)
{
    size_t n = json_array_size(questions);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < i; k++)
            if (json_equal(json_object_get(json_array_get(questions, i), "id"),
                           json_object_get(json_array_get(questions, k), "id")))
                return false;
    return true;
}

bool question_of(struct turn *t, struct call *c)
{
    json_t *args = NULL;
    if (!str_is(buf_view(&c->name), "ask_user") ||
        !toolrun_args(t->s->tools, "ask_user", buf_view(&c->args), &args))
        return false;
    json_t *questions = json_object_get(args, "questions");
    bool good = ids_differ(questions);
    if (good) {
        json_decref(c->questions);
        c->questions = json_incref(questions);
    }
    json_decref(args);
    return good;
}

int question_request(struct turn *t, struct call *c, struct err *err)
{
    struct str first = json_view(json_object_get(json_array_get(c->questions, 0), "question"));
    json_t *options = json_pack(
        "[{s:s, s:s, s:s}, {s:s, s:s, s:s}, {s:s, s:s, s:s}]", "optionId", "answer", "kind",
        "allow_once", "name", "Answer the questions", "optionId", "deny", "kind", "deny", "name",
        "Decline to answer", "optionId", "deny_and_stop", "kind", "deny_and_stop", "name",
        "Decline and end the turn");
    json_t *data = ask_request(t, c, "other", first, STR("the agent asks"), options);
    if (data)
        json_object_set(data, "questions", c->questions);
    return session_log(t->s, t->id, c->item, "approval.requested", data, err);
}

/* Appends one answer: a text, or several where the question takes several. */
static int add_answer(const json_t *question, const json_t *answer, struct buf *out,
                      struct err *err)
{
    struct str id = json_view(json_object_get(question, "id"));
    bool multi = json_is_true(json_object_get(question, "multi"));
    size_t i;
    json_t *one;
    envelope_clean(out, id);
    buf_puts(out, ": ");
    if (json_is_string(answer)) {
        envelope_clean(out, json_view(answer));
    } else if (multi && json_is_array(answer)) {
        json_array_foreach(answer, i, one)
        {
            if (!json_is_string(one))
                return err_set(err, ERR_PARSE, "answers.%.*s[%zu] is not a text", STR_ARG(id), i);
            buf_puts(out, i ? ", " : "");
            envelope_clean(out, json_view(one));
        }
    } else {
        return err_set(err, ERR_PARSE, "answers.%.*s is missing or not %s", STR_ARG(id),
                       multi ? "a text or a list of texts" : "a text");
    }
    buf_putc(out, '\n');
    return 0;
}

/* An answer to a question that was not asked is a mistake of the client: it is told. */
static int check_ids(const json_t *questions, const json_t *answers, struct err *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)answers, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < json_array_size(questions); i++)
            known |= str_is(json_view(json_object_get(json_array_get(questions, i), "id")), key);
        if (!known)
            return err_set(err, ERR_PARSE, "no question has the id '%.60s'", key);
    }
    return 0;
}

int question_answer(const struct call *c, const struct loop_answer *a, struct buf *out,
                    struct err *err)
{
    size_t n = json_array_size(c->questions);
    const json_t *answers = a->answers;
    json_t *made = NULL;
    if (!answers && a->note.n && n == 1) { /* the plain way: one question, one text */
        answers = made = json_object();
        json_object_set_new(made, json_string_value(json_object_get(
                                      json_array_get(c->questions, 0), "id")),
                            json_text(a->note));
    }
    if (!json_is_object(answers))
        return err_set(err, ERR_PARSE, "these are questions: answers is an object from the id "
                                       "of each to its text");
    int rc = check_ids(c->questions, answers, err);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const json_t *q = json_array_get(c->questions, i);
        rc = add_answer(q, json_object_get(answers, json_string_value(json_object_get(q, "id"))),
                        out, err);
    }
    json_decref(made);
    if (rc == 0 && out->len > ANSWER_MAX)
        rc = err_set(err, ERR_PARSE, "the answers are longer than %d bytes", ANSWER_MAX);
    envelope_status(out, "answered by the user");
    return rc == 0 ? buf_check(out, "the answers", err) : rc;
}
