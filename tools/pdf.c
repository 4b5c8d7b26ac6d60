/* pdf.c - runs pdftotext on a memory file and drains it, within a time. */
#include "tools/pdf.h"

#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/io.h"
#include "tools/child.h"

enum { SECONDS = 30 };

static void drain(struct child *c, struct buf *out)
{
    int64_t end = io_mono_ns() + SECONDS * 1000000000LL;
    for (bool open = true; open && io_mono_ns() < end && !out->failed;) {
        char chunk[16384];
        struct pollfd p = {c->out[0], POLLIN, 0};
        poll(&p, 1, 1000);
        ssize_t n = read(c->out[0], chunk, sizeof chunk);
        if (n > 0)
            buf_add(out, chunk, (size_t)n);
        open = n != 0;
    }
    struct pollfd p = {c->pidfd, POLLIN, 0};
    poll(&p, 1, 1000);
    child_reap(c);
}

int pdf_text(struct str data, struct buf *out, struct err *err)
{
    static const char *const argv[] = {"pdftotext", "-q", "-enc", "UTF-8", "/dev/fd/100", "-",
                                       NULL};
    struct child_spec spec = {.argv = argv};
    struct child c;
    spec.control = memfd_create("pdf", MFD_CLOEXEC);
    if (spec.control < 0)
        return err_sys(err, "memfd_create");
    int rc = io_write_full(spec.control, data.p, data.n, err);
    if (rc == 0)
        rc = child_start(&c, &spec, err);
    close(spec.control);
    if (rc < 0)
        return rc;
    drain(&c, out);
    if (c.exited && c.code == 127)
        rc = err_set(err, ERR_UNSUPPORTED, "PDF needs pdftotext (package poppler-utils)");
    else if (!c.exited || c.code != 0)
        rc = err_set(err, ERR_UNSUPPORTED, "pdftotext could not read it");
    child_done(&c);
    return rc;
}
