/* pdf.h - text of PDF files, by poppler's pdftotext where it is installed. */
#ifndef TOOLS_PDF_H
#define TOOLS_PDF_H

#include "base/buf.h"

/* Appends the text; -ERR_UNSUPPORTED when it cannot be had. `data` is the whole file. */
NODISCARD int pdf_text(struct str data, struct buf *out, struct err *err);

#endif
