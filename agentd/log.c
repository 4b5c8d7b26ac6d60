/* log.c - the log's one sink. A line is one write(), so lines of two threads never mix. */
#include "agentd/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"

static const char *const names[] = {"error", "warn", "info", "debug"};
static const char *const priority[] = {"<3>", "<4>", "<6>", "<7>"}; /* sd-daemon(3) */

static enum log_level threshold = LOG_INFO;
static bool prefixed;

void log_init(enum log_level max)
{
    threshold = max;
    prefixed = getenv("JOURNAL_STREAM") != NULL;
}

bool log_level_parse(struct str name, enum log_level *out)
{
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        if (str_is(name, names[i])) {
            *out = (enum log_level)i;
            return true;
        }
    return false;
}

void log_line(enum log_level level, const char *module, const char *fmt, ...)
{
    if (level > threshold)
        return;
    char text[2048], line[2 * sizeof text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    int n = snprintf(line, sizeof line, "%s%s %s ", prefixed ? priority[level] : "",
                     names[level], module);
    size_t at = (size_t)n;
    for (const char *p = text; *p && at < sizeof line - 8; p++) {
        unsigned char c = (unsigned char)*p;
        if (c >= 0x20 && c != 0x7f)
            line[at++] = (char)c;
        else
            at += (size_t)snprintf(line + at, 5, "\\x%02x", c);
    }
    line[at++] = '\n';
    ssize_t put = write(STDERR_FILENO, line, at);
    (void)put; /* a closed stderr must not stop the daemon */
}
