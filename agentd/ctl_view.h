/*
 * ctl_view.h - a turn as a person sees it: reasoning dim, a call in a frame with its result,
 * the answer plain. The answer goes to standard output, all else to standard error, so that
 * an answer can be piped. Bytes from a model or a tool never steer the terminal.
 */
#ifndef AGENTD_CTL_VIEW_H
#define AGENTD_CTL_VIEW_H

#include "agentd/client.h"
#include "agentd/opt.h"

/* Exit codes of commands that play a turn. */
enum { EXIT_LIMIT = 3, EXIT_DENIED = 4, EXIT_ENGINE = 5, EXIT_CANCELLED = 130 };

struct view {
    struct client *c;    /* borrowed */
    const char *approve; /* answers every question so; NULL = ask on the terminal, else deny */
    bool json;           /* events as they came, one a line, instead of the drawing */
    bool quiet;          /* no line of figures at the end */
    bool watch_only;     /* another client answers the questions */
    bool colour;
    char phase; /* what was printed last: t(hinking), a(nswer), c(all), 0 */
    struct view_shown { /* what of the newest reasoning and the newest text is on the screen */
        char item[64];
        size_t n;
    } shown[2];
    int code;  /* exit code of the turn that ended last */
    bool done; /* a turn has ended */
};

/* Colour follows the terminal on standard error, NO_COLOR and TERM=dumb. */
void view_init(struct view *v, struct client *c);
/* Draws one message of the daemon; answers its questions unless watch_only. */
void view_message(struct view *v, json_t *msg);
/* Draws until the turn ends. SIGINT, caught by view_catch_interrupts(), interrupts the turn
 * softly, a second one at once. */
NODISCARD int view_turn(struct view *v, const char *turn_id, struct err *err);
void view_catch_interrupts(void);
/* Interrupts seen so far. */
int view_interrupts(void);
/* Prints text from outside: control bytes dropped, `after_newline` behind each newline. */
void view_put(FILE *to, struct str text, const char *after_newline);
/* The string at `key`, empty when there is none. */
struct str view_field(const json_t *o, const char *key);
/* One JSON value on a line of standard output. */
void view_json(const json_t *v);
/* Escape code for standard error, or "". */
const char *view_paint(const struct view *v, const char *code);

#endif
