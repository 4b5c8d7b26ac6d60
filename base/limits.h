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
#ifndef LIMIT_JSON_DEPTH
#define LIMIT_JSON_DEPTH 500 /* Python's reader, the format's reference, stops near 1000 */
#endif
#ifndef LIMIT_PROMPT_BYTES
#define LIMIT_PROMPT_BYTES (64u << 20) /* 128K tokens are about half a megabyte */
#endif
#ifndef LIMIT_LINE_BYTES
#define LIMIT_LINE_BYTES (16u << 20) /* one request on the socket; announced to clients */
#endif
#ifndef LIMIT_PARAMS_PER_CALL
#define LIMIT_PARAMS_PER_CALL 256 /* a tool with 30 is already a bad tool */
#endif
#ifndef LIMIT_ARGUMENTS_BYTES
#define LIMIT_ARGUMENTS_BYTES (8u << 20) /* one call may write a whole file */
#endif
#ifndef LIMIT_NAME_BYTES
#define LIMIT_NAME_BYTES 256 /* of a tool or a parameter, as the model spells it */
#endif
#ifndef LIMIT_CALLS_PER_MESSAGE
#define LIMIT_CALLS_PER_MESSAGE 64 /* the longest published example has 20 */
#endif
#ifndef LIMIT_YAML_BYTES
#define LIMIT_YAML_BYTES (1 << 20) /* written by people; the largest example has 12 KB */
#endif
#ifndef LIMIT_YAML_DEPTH
#define LIMIT_YAML_DEPTH 16 /* our own files use five */
#endif
#ifndef LIMIT_YAML_NODES
#define LIMIT_YAML_NODES 20000 /* an allow-list of hosts is the longest thing in one */
#endif

/* --- weight files --------------------------------------------------------------------- */

#define LIMIT_TENSORS (1u << 18)       /* DeepSeek-V3.2 in safetensors lists 92,425 */
#define LIMIT_GGUF_KV (1u << 16)       /* a real file has about 60 keys */
#define LIMIT_GGUF_KEY 1024u           /* bytes; real keys have fewer than 80 */
#define LIMIT_GGUF_STRING (4u << 20)   /* a chat template is the longest, about 30 KB */
#define LIMIT_GGUF_ARRAY (1u << 22)    /* elements; vocabularies and merges reach 400,000 */
#define LIMIT_GGUF_ALIGN (1u << 20)
#define LIMIT_MODEL_PARTS 4096u        /* DeepSeek-V3.2 comes in 163 */
#define LIMIT_MAPPED_FILES 8192u      /* two models of the most parts */
#define LIMIT_ROW (1u << 24)           /* elements of one row; the widest real one has 24,576 */
#ifndef LIMIT_SCAN_BYTES
#define LIMIT_SCAN_BYTES (64u << 20) /* files up to this size are read whole for NaN */
#endif

/* --- tools ---------------------------------------------------------------------------- */

#ifndef LIMIT_EDIT_BYTES
#define LIMIT_EDIT_BYTES (8u << 20) /* a file the editor rewrites; larger ones are data */
#endif
#ifndef LIMIT_SPILL_BYTES
#define LIMIT_SPILL_BYTES (16u << 20) /* of one output kept whole, for looking at later */
#endif
#ifndef LIMIT_SPILLS_BYTES
#define LIMIT_SPILLS_BYTES (128u << 20) /* of all outputs kept of one session; oldest go first */
#endif
#ifndef LIMIT_SPILL_SHOWN
#define LIMIT_SPILL_SHOWN (3u << 20) /* of it when opened as a page: 40,000 lines */
#endif
#ifndef LIMIT_SHELL_STATE
#define LIMIT_SHELL_STATE (1u << 20) /* variables and functions of a shell between calls */
#endif
#ifndef LIMIT_JOBS
#define LIMIT_JOBS 16 /* background commands of one session */
#endif
#ifndef LIMIT_PAGE_BYTES
#define LIMIT_PAGE_BYTES (8u << 20) /* fetched from the web; real pages are below 2 MB */
#endif
#ifndef LIMIT_PAGES
#define LIMIT_PAGES 2000 /* cursors of one session */
#endif
#ifndef LIMIT_INDEX_DOCS
#define LIMIT_INDEX_DOCS 1000000 /* files of one folder; a documentation tree has 50,000 */
#endif
#ifndef LIMIT_INDEX_MEMORY_BYTES
#define LIMIT_INDEX_MEMORY_BYTES (64u << 20) /* of files, when a folder is searched unindexed */
#endif

/* --- daemon --------------------------------------------------------------------------- */

#ifndef LIMIT_PENDING_BYTES
#define LIMIT_PENDING_BYTES (64u << 20) /* events that wait for a store that cannot be written */
#endif
#ifndef LIMIT_CONNECTIONS
#define LIMIT_CONNECTIONS 4096 /* clients at once, where the process may open so many files */
#endif
#ifndef LIMIT_OUTPUT_BYTES
#define LIMIT_OUTPUT_BYTES (4u << 20) /* output queue of one client before events wait */
#endif
#ifndef LIMIT_REQUESTS
#define LIMIT_REQUESTS 64 /* unanswered requests of one connection */
#endif
#ifndef LIMIT_SUBSCRIPTIONS
#define LIMIT_SUBSCRIPTIONS 128 /* of one connection */
#endif
#ifndef LIMIT_SESSIONS_LOADED
/* Sessions kept open, transcript and cells; idle ones are dropped first. With two cells each they
 * leave some of the host's 500 ranges of ids to other daemons. */
#define LIMIT_SESSIONS_LOADED 192
#endif
#ifndef LIMIT_GENERATIONS
#define LIMIT_GENERATIONS 256 /* generations waiting or running in the engine */
#endif

#ifndef LIMIT_PROXY_CONNECTIONS
#define LIMIT_PROXY_CONNECTIONS 64 /* of one session; package managers open 16 */
#endif
#ifndef LIMIT_PROXY_BYTES
#define LIMIT_PROXY_BYTES (4ull << 30) /* of one connection, both ways */
#endif

#endif
