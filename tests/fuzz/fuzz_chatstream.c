/* Replies of a hostile server in pieces of any size: the same deltas whatever the pieces. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "agentd/chatstream.h"
#include "base/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_piece(void *arg, struct str delta)
{
    buf_str(arg, delta);
    buf_putc(arg, 1);
}

static void on_call(void *arg, uint32_t i, struct str name, struct str args)
{
    buf_printf(arg, "%u %.*s %.*s", i, STR_ARG(name), STR_ARG(args));
    if (i >= 64)
        abort();
}

static void play(const uint8_t *data, size_t size, size_t step, struct buf *said)
{
    struct chatstream *cs;
    struct err err;
    const struct chatstream_cbs cbs = {on_piece, on_piece, on_call, said};
    buf_init(said, 0);
    if (chatstream_new(&cs, &cbs, 1000, &err) < 0)
        return;
    for (size_t at = 0; at < size; at += step)
        if (chatstream_feed(cs, str_of(data + at, size - at < step ? size - at : step)) >=
            CHATSTREAM_DONE)
            break;
    enum chatstream_state end = chatstream_finish(cs, "text/plain");
    if (end < CHATSTREAM_DONE || (end == CHATSTREAM_BROKEN && !chatstream_problem(cs)[0]))
        abort();
    chatstream_free(cs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf whole, pieces;
    play(data, size, size + 1, &whole);
    play(data, size, 3, &pieces);
    if (!str_eq(buf_view(&whole), buf_view(&pieces)))
        abort();
    buf_done(&whole);
    buf_done(&pieces);
    return 0;
}
