/* ctl_bench_depth_plot.c - the figures of `agentctl bench depth` as a table, CSV, JSON, SVG. */
#include <stdio.h>

#include "agentd/ctl_bench_depth.h"
#include "base/json.h"

static double share(const struct depth_report *r, uint32_t i, unsigned way)
{
    return r->row[i].decode[way] / r->row[0].decode[way];
}

void depth_table(const struct depth_report *r, struct buf *out)
{
    buf_printf(out, "%s, %u threads, load %.1f, medians of %u runs\n", r->model, r->threads,
               r->load, r->runs);
    if (r->load > 0.5)
        buf_puts(out, "other programs were running: the figures are lower than this machine's\n");
    buf_printf(out, "\ndecode, tokens/s, and as a share of the first depth's\n%8s", "depth");
    for (unsigned w = 0; w < DEPTH_WAYS; w++)
        buf_printf(out, "  %24s", depth_way_name(w));
    for (uint32_t i = 0; i < r->n_rows; i++) {
        buf_printf(out, "\n%8u", r->row[i].depth);
        for (unsigned w = 0; w < DEPTH_WAYS; w++)
            buf_printf(out, "  %16.2f  %5.1f%%", r->row[i].decode[w], 100 * share(r, i, w));
    }
    buf_puts(out, "\n\nprocessor time of a decoded token, ms over all threads at best (busy "
                  "machines do not change it much)\n");
    for (uint32_t i = 0; i < r->n_rows; i++) {
        buf_printf(out, "%8u", r->row[i].depth);
        for (unsigned w = 0; w < DEPTH_WAYS; w++)
            buf_printf(out, "  %16.2f  %5.1f%%", 1e3 * r->row[i].cpu[w],
                       100 * r->row[0].cpu[w] / r->row[i].cpu[w]);
        buf_puts(out, "\n");
    }
    for (uint32_t i = 0; r->prefill_too && i < r->n_rows; i++) {
        buf_printf(out, "%s%8u", i ? "\n" : "\nprefill of 256, tokens/s\n", r->row[i].depth);
        for (unsigned w = 0; w < DEPTH_WAYS; w++)
            buf_printf(out, "  %24.1f", r->row[i].prefill[w]);
    }
    const struct depth_snap *s = &r->snap;
    if (s->depth)
        buf_printf(out, "\n%s%u positions, %.1f MB in the cache, %.1f MB on disk: saved in %.3f s "
                   "(%.2f GB/s),\nloaded in %.3f s (%.2f GB/s), forked in %.0f us, cut in half in "
                   "%.0f us\n", r->prefill_too ? "\n" : "", s->depth, s->bytes / 1e6,
                   s->file / 1e6, s->save, s->bytes / s->save / 1e9, s->load,
                   s->bytes / s->load / 1e9, s->fork * 1e6, s->cut * 1e6);
}

void depth_csv(const struct depth_report *r, struct buf *out)
{
    buf_puts(out, "way,threads,load,runs,depth,decode_tokens_per_s,share_of_first,"
                  "prefill_tokens_per_s,cpu_seconds_per_token\r\n");
    for (unsigned w = 0; w < DEPTH_WAYS; w++)
        for (uint32_t i = 0; i < r->n_rows; i++)
            buf_printf(out, "\"%s\",%u,%.2f,%u,%u,%.3f,%.4f,%.3f,%.6f\r\n", depth_way_name(w),
                       r->threads, r->load, r->runs, r->row[i].depth, r->row[i].decode[w],
                       share(r, i, w), r->row[i].prefill[w], r->row[i].cpu[w]);
}

void depth_json(const struct depth_report *r, struct buf *out)
{
    json_t *list = json_array();
    for (unsigned w = 0; w < DEPTH_WAYS; w++) {
        json_t *rows = json_array();
        for (uint32_t i = 0; i < r->n_rows; i++)
            json_array_append_new(
                rows, json_pack("{s:i, s:f, s:f, s:f, s:f}", "depth", (int)r->row[i].depth,
                                "decode_tokens_per_s", r->row[i].decode[w], "share_of_first",
                                share(r, i, w), "prefill_tokens_per_s", r->row[i].prefill[w],
                                "cpu_seconds_per_token", r->row[i].cpu[w]));
        json_array_append_new(list, json_pack("{s:s, s:o}", "way", depth_way_name(w), "rows",
                                              rows));
    }
    const struct depth_snap *s = &r->snap;
    json_t *v = json_pack("{s:o, s:i, s:f, s:i, s:o, s:{s:i, s:f, s:f, s:f, s:f, s:f, s:f}}",
                          "model", json_text(str_c(r->model)), "threads", (int)r->threads, "load",
                          r->load, "runs", (int)r->runs, "ways", list, "snapshot", "depth",
                          (int)s->depth, "bytes", s->bytes, "file_bytes", s->file,
                          "save_seconds", s->save, "load_seconds", s->load, "fork_seconds",
                          s->fork, "truncate_seconds", s->cut);
    struct err err;
    if (!v || json_write_pretty(v, out, &err) < 0)
        out->failed = ERR_NOMEM;
    buf_putc(out, '\n');
    json_decref(v);
}

/* --- SVG ---------------------------------------------------------------------------------- */

enum { WIDTH = 420, HEIGHT = 240, LEFT = 60, TOP = 50 };

static const char *const colour[DEPTH_WAYS] = {"#147", "#2a7", "#a33"};

static double at_x(const struct depth_report *r, uint32_t i)
{
    return LEFT + (r->n_rows > 1 ? (double)WIDTH * i / (r->n_rows - 1) : 0);
}

static void svg_line(const struct depth_report *r, struct buf *out, unsigned way, double top)
{
    buf_printf(out, "<polyline fill=\"none\" stroke-width=\"2\" stroke=\"%s\" points=\"",
               colour[way]);
    for (uint32_t i = 0; i < r->n_rows; i++)
        buf_printf(out, "%.1f,%.1f ", at_x(r, i), TOP + HEIGHT * (1 - r->row[i].decode[way] / top));
    buf_puts(out, "\"/>\n");
    for (uint32_t i = 0; i < r->n_rows; i++)
        buf_printf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", at_x(r, i),
                   TOP + HEIGHT * (1 - r->row[i].decode[way] / top), colour[way]);
}

void depth_svg(const struct depth_report *r, struct buf *out)
{
    double top = 0;
    for (uint32_t i = 0; i < r->n_rows; i++)
        for (unsigned w = 0; w < DEPTH_WAYS; w++)
            top = r->row[i].decode[w] > top ? r->row[i].decode[w] : top;
    top = top > 0 ? top * 1.1 : 1;
    buf_printf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
               "font-family=\"sans-serif\" font-size=\"12\">\n"
               "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
               "<text x=\"%d\" y=\"22\" font-weight=\"bold\">decode by context length, tokens/s"
               "</text>\n<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" "
               "stroke=\"#999\"/>\n", LEFT + WIDTH + 200, TOP + HEIGHT + 60, LEFT, LEFT, TOP, WIDTH,
               HEIGHT);
    for (int k = 0; k <= 4; k++)
        buf_printf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%.3g</text>\n", LEFT - 6,
                   TOP + HEIGHT - HEIGHT * k / 4 + 4, top * k / 4);
    for (uint32_t i = 0; i < r->n_rows; i++)
        buf_printf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%u</text>\n", at_x(r, i),
                   TOP + HEIGHT + 18, r->row[i].depth);
    for (unsigned w = 0; w < DEPTH_WAYS; w++) {
        svg_line(r, out, w, top);
        buf_printf(out, "<text x=\"%d\" y=\"%u\" fill=\"%s\">%s: %.0f%% of its first</text>\n",
                   LEFT + WIDTH + 12, TOP + 20 + 22 * w, colour[w], depth_way_name(w),
                   100 * share(r, r->n_rows - 1, w));
    }
    buf_printf(out, "<text x=\"%d\" y=\"%d\" fill=\"#555\">%u threads, medians of %u runs, load "
               "%.1f at the start</text>\n</svg>\n", LEFT, TOP + HEIGHT + 44, r->threads, r->runs,
               r->load);
}
