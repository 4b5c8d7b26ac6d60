/*
 * log.h - one line per event on stderr: `level module key=value ...`. Bytes that could
 * break a line or a terminal are escaped. No prompt, tool output or secret above debug.
 */
#ifndef AGENTD_LOG_H
#define AGENTD_LOG_H

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Before the second thread. Under a service manager lines get its priority prefix. */
void log_init(enum log_level max);
bool log_level_parse(struct str name, enum log_level *out);
void log_line(enum log_level level, const char *module, const char *fmt, ...) PRINTF(3, 4);

#define LOGE(module, ...) log_line(LOG_ERROR, module, __VA_ARGS__)
#define LOGW(module, ...) log_line(LOG_WARN, module, __VA_ARGS__)
#define LOGI(module, ...) log_line(LOG_INFO, module, __VA_ARGS__)
#define LOGD(module, ...) log_line(LOG_DEBUG, module, __VA_ARGS__)

#endif
