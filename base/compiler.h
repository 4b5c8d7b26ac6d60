/* compiler.h - attributes that the whole tree uses. What it never uses, tests/lint bans. */
#ifndef BASE_COMPILER_H
#define BASE_COMPILER_H

#define NODISCARD __attribute__((warn_unused_result))
#define PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define NORETURN __attribute__((noreturn))
#define UNUSED __attribute__((unused))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* The struct that holds `member` at `ptr`. */
#define CONTAINER_OF(ptr, type, member)                                                  \
    ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

#endif
