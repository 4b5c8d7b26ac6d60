/* level.h - how much of the sandbox a host can give, weakest first. */
#ifndef SANDBOX_LEVEL_H
#define SANDBOX_LEVEL_H

enum sandbox_level {
    SANDBOX_NONE,     /* nothing confines the call */
    SANDBOX_LANDLOCK, /* Landlock and seccomp without namespaces */
    SANDBOX_NOLIMITS, /* everything but control groups */
    SANDBOX_FULL,     /* every promise */
};

const char *sandbox_level_name(enum sandbox_level level);

#endif
