/* lineedit.c - libedit on a terminal, getline elsewhere; continued lines are joined here. */
#include "agentd/lineedit.h"

#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"

enum { HISTORY_LINES = 1000 };

struct lineedit {
    EditLine *el;        /* NULL: standard input is no terminal */
    History *history;    /* with el */
    HistEvent ev;
    char *path;          /* owned, history file, may be NULL */
    const char *prompt;  /* borrowed for one read */
    struct buf text;     /* the line being collected */
    char *plain;         /* getline's buffer */
    size_t plain_cap;
};

static volatile sig_atomic_t resized;

static void on_winch(int signo)
{
    (void)signo;
    resized = 1;
}

/* One character from the terminal. A changed window is told to libedit here, where it may
 * redraw; any other signal ends the line. */
static int read_char(EditLine *el, wchar_t *out)
{
    mbstate_t state;
    memset(&state, 0, sizeof state);
    for (;;) {
        char byte;
        ssize_t n = read(STDIN_FILENO, &byte, 1);
        if (n < 0 && errno == EINTR && resized) {
            resized = 0;
            el_resize(el);
            continue;
        }
        if (n <= 0)
            return (int)n;
        size_t used = mbrtowc(out, &byte, 1, &state);
        if (used == (size_t)-2)
            continue; /* more bytes belong to it */
        if (used == (size_t)-1) { /* no UTF-8: drop what came of it */
            memset(&state, 0, sizeof state);
            continue;
        }
        return 1;
    }
}

/* Letters of any script can be typed, also where no locale is set. */
static void speak_utf8(void)
{
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "C.UTF-8");
}

static char *prompt_of(EditLine *el)
{
    struct lineedit *l;
    el_get(el, EL_CLIENTDATA, &l);
    return (char *)(uintptr_t)l->prompt;
}

int lineedit_open(struct lineedit **out, const char *name, const char *file, struct err *err)
{
    struct lineedit *l = mem_zalloc(sizeof *l);
    if (!l)
        return err_nomem(err);
    buf_init(&l->text, LIMIT_LINE_BYTES);
    if (isatty(STDIN_FILENO)) {
        struct sigaction winch = {.sa_handler = on_winch};
        speak_utf8();
        sigaction(SIGWINCH, &winch, NULL);
        l->el = el_init(name, stdin, stdout, stderr);
        l->history = history_init();
        l->path = file ? mem_strdup(str_c(file)) : NULL;
        if (!l->el || !l->history || (file && !l->path)) {
            lineedit_close(l);
            return err_nomem(err);
        }
        history(l->history, &l->ev, H_SETSIZE, HISTORY_LINES);
        history(l->history, &l->ev, H_SETUNIQUE, 1);
        if (l->path)
            history(l->history, &l->ev, H_LOAD, l->path);
        el_set(l->el, EL_CLIENTDATA, l);
        el_set(l->el, EL_PROMPT, prompt_of);
        el_set(l->el, EL_EDITOR, "emacs");
        el_set(l->el, EL_HIST, history, l->history);
        el_set(l->el, EL_SIGNAL, 0);
        el_set(l->el, EL_GETCFN, read_char);
        el_source(l->el, NULL);
    }
    *out = l;
    return 0;
}

/* One physical line into *s; false at the end of input, *again after Ctrl-C. */
static bool read_one(struct lineedit *l, struct str *s, bool *again)
{
    *again = false;
    if (l->el) {
        int n = 0;
        errno = 0;
        if (resized) { /* while the agent was speaking */
            resized = 0;
            el_resize(l->el);
        }
        const char *got = el_gets(l->el, &n);
        *again = !got && errno == EINTR;
        if (*again)
            fputc('\n', stdout);
        *s = str_of(got, got && n > 0 ? (size_t)n : 0);
        return got != NULL;
    }
    ssize_t n = getline(&l->plain, &l->plain_cap, stdin);
    *s = str_of(l->plain, n > 0 ? (size_t)n : 0);
    return n >= 0;
}

int lineedit_read(struct lineedit *l, const char *prompt, const char **line, struct err *err)
{
    bool more = true, again = false;
    buf_reset(&l->text);
    for (l->prompt = prompt; more;) {
        struct str s;
        if (!read_one(l, &s, &again)) {
            if (again) {
                if (l->el)
                    el_reset(l->el);
                buf_reset(&l->text);
                l->prompt = prompt;
                continue;
            }
            *line = l->text.len ? buf_cstr(&l->text) : NULL;
            return buf_check(&l->text, "the line", err);
        }
        if (s.n && s.p[s.n - 1] == '\n')
            s.n--;
        more = s.n && s.p[s.n - 1] == '\\';
        buf_str(&l->text, str_sub(s, 0, s.n - (more ? 1 : 0)));
        if (more)
            buf_putc(&l->text, '\n');
        l->prompt = "... ";
    }
    *line = buf_cstr(&l->text);
    if (l->el && l->text.len)
        history(l->history, &l->ev, H_ENTER, *line);
    return buf_check(&l->text, "the line", err);
}

void lineedit_close(struct lineedit *l)
{
    if (!l)
        return;
    if (l->history && l->path)
        history(l->history, &l->ev, H_SAVE, l->path);
    if (l->history)
        history_end(l->history);
    if (l->el)
        el_end(l->el);
    buf_done(&l->text);
    free(l->plain); /* getline's, hence libc's */
    mem_free(l->path);
    mem_free(l);
}
