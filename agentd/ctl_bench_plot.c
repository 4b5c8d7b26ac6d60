/* ctl_bench_plot.c - the figures of `agentctl bench engine` as a table, CSV and SVG. */
#include <stdbool.h>
#include <stdio.h>

#include "agentd/ctl_bench_engine.h"
#include "engine/model.h"

void bench_engine_table(const struct bench_report *r, struct buf *out)
{
    buf_printf(out, "%s (%s) on %s\n", r->model, r->arch, r->cpu);
    buf_printf(out, "agentd %s (%s), kernels %s, %u threads, load %.1f, medians of %u runs\n",
               AGENTD_VERSION, AGENTD_COMMIT, model_kernels(), r->threads, r->load, r->runs);
    buf_printf(out, "memory reads at %.1f GB/s", r->memory / 1e9);
    if (r->file > 0)
        buf_printf(out, ", the model's pages at %.1f", r->file / 1e9);
    buf_printf(out, "; a token reads %.2f MB of weights\n", r->weight_bytes / 1e6);
    buf_printf(out, "registers multiply and add at %.0f G/s in int8, %.0f G/s in f32; a prefilled "
               "token\npasses %.1f M weights\n\n", r->int8 / 1e9, r->f32 / 1e9,
               r->prefill_macs / 1e6);
    if (r->load > 0.5)
        buf_puts(out, "other programs were running: the figures are lower than this machine's\n\n");
    buf_printf(out, "%8s  %14s  %8s  %14s  %10s  %12s  %8s\n", "depth", "prefill tok/s",
               "of int8", "decode tok/s", "MB/token", "roof tok/s", "of roof");
    for (uint32_t i = 0; i < r->n_rows; i++) {
        const struct bench_row *x = &r->row[i];
        buf_printf(out, "%8u  %14.1f  %7.1f%%  %14.2f  %10.2f  %12.2f  %7.1f%%\n", x->depth,
                   x->prefill, 100 * x->prefill * r->prefill_macs / r->int8, x->decode,
                   x->bytes / 1e6, x->roofline, 100 * x->decode / x->roofline);
    }
    for (uint32_t i = 0; r->sessions && i < r->n_rows; i++)
        buf_printf(out, "%s%8u  %u sessions together: %.2f tok/s, %.2f times one\n",
                   i ? "" : "\n", r->row[i].depth, r->sessions, r->row[i].together,
                   r->row[i].together / r->row[i].decode);
    if (!r->peer[0])
        return;
    buf_printf(out, "\nbeside %s (%s)\n%8s  %14s  %8s  %14s  %8s\n", r->peer, r->peer_commit,
               "depth", "prefill tok/s", "we are", "decode tok/s", "we are");
    for (uint32_t i = 0; i < r->n_rows; i++) {
        const struct bench_row *x = &r->row[i];
        buf_printf(out, "%8u  %14.1f  %7.2fx  %14.2f  %7.2fx\n", x->depth, x->peer_prefill,
                   x->prefill / x->peer_prefill, x->peer_decode, x->decode / x->peer_decode);
    }
}

/* Quotes are doubled, as RFC 4180 has it. */
static void csv_text(struct buf *out, const char *s)
{
    buf_putc(out, '"');
    for (; *s; s++) {
        if (*s == '"')
            buf_putc(out, '"');
        buf_putc(out, *s);
    }
    buf_putc(out, '"');
}

void bench_engine_csv(const struct bench_report *r, struct buf *out)
{
    buf_puts(out, "model,arch,cpu,version,commit,threads,load,runs,memory_bytes_per_s,"
                  "model_bytes_per_s,"
                  "int8_macs_per_s,f32_macs_per_s,depth,prefill_tokens_per_s,"
                  "decode_tokens_per_s,bytes_per_token,roofline_tokens_per_s,roofline_share,"
                  "prefill_int8_share,sessions,together_tokens_per_s,peer_commit,"
                  "peer_prefill_tokens_per_s,peer_decode_tokens_per_s\r\n");
    for (uint32_t i = 0; i < r->n_rows; i++) {
        const struct bench_row *x = &r->row[i];
        csv_text(out, r->model);
        buf_printf(out, ",%s,", r->arch);
        csv_text(out, r->cpu);
        buf_printf(out, ",%s,%s,%u,%.2f,%u,%.0f,%.0f,%.0f,%.0f,%u,%.3f,%.3f,%.0f,%.3f,%.4f,%.4f,%u,"
                   "%.3f,", AGENTD_VERSION, AGENTD_COMMIT, r->threads, r->load, r->runs,
                   r->memory, r->file, r->int8, r->f32, x->depth, x->prefill, x->decode, x->bytes,
                   x->roofline, x->decode / x->roofline, x->prefill * r->prefill_macs / r->int8,
                   r->sessions, x->together);
        csv_text(out, r->peer_commit);
        buf_printf(out, ",%.3f,%.3f\r\n", x->peer_prefill, x->peer_decode);
    }
}

/* --- SVG ---------------------------------------------------------------------------------- */

enum { PANEL_W = 360, PANEL_H = 220, LEFT = 70, TOP = 70, SERIES = 5 };

static void svg_text(struct buf *out, int x, int y, const char *style, const char *s)
{
    buf_printf(out, "<text x=\"%d\" y=\"%d\" %s>", x, y, style);
    for (; *s; s++) {
        const char *e = *s == '<' ? "&lt;" : *s == '>' ? "&gt;" : *s == '&' ? "&amp;" : NULL;
        if (e)
            buf_puts(out, e);
        else
            buf_putc(out, (unsigned char)*s < ' ' ? ' ' : *s);
    }
    buf_puts(out, "</text>\n");
}

static double value(const struct bench_row *x, int series)
{
    const double of[] = {x->prefill, x->decode, x->roofline, x->peer_prefill, x->peer_decode};
    return of[series];
}

/* Depths stand at equal distances in the order given; rates start at zero. */
static void svg_line(const struct bench_report *r, struct buf *out, int left, int series,
                     double top, const char *style)
{
    double gap = r->n_rows > 1 ? (double)PANEL_W / (r->n_rows - 1) : 0;
    buf_printf(out, "<polyline fill=\"none\" %s points=\"", style);
    for (uint32_t i = 0; i < r->n_rows; i++)
        buf_printf(out, "%.1f,%.1f ", left + gap * i,
                   TOP + PANEL_H * (1 - value(&r->row[i], series) / top));
    buf_puts(out, "\"/>\n");
    for (uint32_t i = 0; i < r->n_rows; i++)
        buf_printf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>\n", left + gap * i,
                   TOP + PANEL_H * (1 - value(&r->row[i], series) / top));
}

static void svg_panel(const struct bench_report *r, struct buf *out, int left, bool decode)
{
    double top = 0, gap = r->n_rows > 1 ? (double)PANEL_W / (r->n_rows - 1) : 0;
    char label[32];
    for (uint32_t i = 0; i < r->n_rows; i++)
        for (int s = decode ? 1 : 0; s < SERIES; s += decode ? s == 1 ? 1 : 2 : 3)
            top = value(&r->row[i], s) > top ? value(&r->row[i], s) : top;
    top = top > 0 ? top * 1.1 : 1;
    buf_printf(out, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" "
               "stroke=\"#999\"/>\n", left, TOP, PANEL_W, PANEL_H);
    svg_text(out, left, TOP - 8, "font-weight=\"bold\"",
             decode ? "decode, tokens/s (dashed: memory's roof)" : "prefill, tokens/s");
    for (int k = 0; k <= 4; k++) {
        snprintf(label, sizeof label, "%.4g", top * k / 4);
        svg_text(out, left - 6, TOP + PANEL_H - PANEL_H * k / 4 + 4, "text-anchor=\"end\"",
                 label);
    }
    for (uint32_t i = 0; i < r->n_rows; i++) {
        snprintf(label, sizeof label, "%u", r->row[i].depth);
        svg_text(out, left + (int)(gap * i), TOP + PANEL_H + 18, "text-anchor=\"middle\"",
                 label);
    }
    if (decode)
        svg_line(r, out, left, 2, top, "stroke=\"#a33\" stroke-dasharray=\"5 4\"");
    if (r->peer[0])
        svg_line(r, out, left, decode ? 4 : 3, top, "stroke=\"#777\"");
    svg_line(r, out, left, decode ? 1 : 0, top, "stroke=\"#147\" stroke-width=\"2\"");
}

void bench_engine_svg(const struct bench_report *r, struct buf *out)
{
    char line[512];
    int width = 2 * (PANEL_W + LEFT) + 40, height = TOP + PANEL_H + 50;
    buf_printf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
               "font-family=\"sans-serif\" font-size=\"12\">\n"
               "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", width, height);
    snprintf(line, sizeof line, "%s (%s), agentd %s (%s)", r->model, r->arch, AGENTD_VERSION,
             AGENTD_COMMIT);
    svg_text(out, LEFT, 22, "font-size=\"15\"", line);
    snprintf(line, sizeof line, "%s, %u threads, memory %.1f GB/s, load %.1f, medians of %u",
             r->cpu, r->threads, (r->file > 0 ? r->file : r->memory) / 1e9, r->load, r->runs);
    svg_text(out, LEFT, 40, "fill=\"#555\"", line);
    svg_panel(r, out, LEFT, false);
    svg_panel(r, out, 2 * LEFT + PANEL_W, true);
    svg_text(out, LEFT, height - 8, "fill=\"#555\"",
             r->peer[0] ? "tokens already in the context; grey: the peer"
                        : "tokens already in the context");
    buf_puts(out, "</svg>\n");
}
