/*
 * limits.h - every cap in the system, with its reason. No number from outside sizes
 * anything before it meets its cap here. Test builds may shrink a cap with -D to meet the
 * edge cheaply.
 */
#ifndef BASE_LIMITS_H
#define BASE_LIMITS_H

#ifndef LIMIT_JSON_BYTES
#define LIMIT_JSON_BYTES (64u << 20) /* tokenizer.json of big models is about 20 MB */
#endif
#ifndef LIMIT_LINE_BYTES
#define LIMIT_LINE_BYTES (16u << 20) /* one request on the socket; announced to clients */
#endif
#ifndef LIMIT_CALLS_PER_MESSAGE
#define LIMIT_CALLS_PER_MESSAGE 64 /* the longest published example has 20 */
#endif

#endif
