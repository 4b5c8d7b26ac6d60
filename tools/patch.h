/*
 * patch.h - the patch grammar, parsed; and hunks applied to a text. Pure: no files.
 *
 *   *** Begin Patch
 *   *** Add File: path          lines that follow start with +
 *   *** Delete File: path
 *   *** Update File: path
 *   *** Move to: path           optional
 *   @@ text of a line above     optional, may repeat; narrows where the hunk lies
 *    context, -old, +new
 *   *** End of File             optional: the hunk lies at the end
 *   *** End Patch
 */
#ifndef TOOLS_PATCH_H
#define TOOLS_PATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum patch_kind { PATCH_ADD, PATCH_DELETE, PATCH_UPDATE };
enum { PATCH_FILES_MAX = 200 };

struct patch_file {
    enum patch_kind kind;
    struct str path, move; /* views into the patch; move is empty when there is none */
    struct str body;       /* the lines of the section */
    uint32_t line;         /* of the body's first line in the patch, 1-based */
};

struct patch {
    struct patch_file file[PATCH_FILES_MAX];
    unsigned n;
};

/* Splits the text into sections; errors name the line and what was expected. */
NODISCARD int patch_parse(struct patch *p, struct str text, struct err *err);
/* The content of an added file. */
NODISCARD int patch_added(const struct patch_file *f, struct buf *out, struct err *err);
/*
 * The new content of an updated file. Every hunk must be found: its lines exactly, else but
 * for white space at line ends, else but for indentation. The error says which hunk was not
 * found and shows the lines it looked for.
 */
NODISCARD int patch_updated(const struct patch_file *f, struct str before, struct buf *out,
                            struct err *err);

#endif
