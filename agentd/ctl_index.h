/* ctl_index.h - between the ctl_index*.c files. */
#ifndef AGENTD_CTL_INDEX_H
#define AGENTD_CTL_INDEX_H

#include "tools/index.h"

/*
 * index_add() in a cell: HTML and PDF are hostile, their parsers see the folder (read-only)
 * and a copy of the index, nothing else. The copy replaces the index when all went well, so
 * readers see the old one or the new one. -ERR_DENIED when there can be no cell.
 * SIGINT makes it stop early: stats->stopped, and what was read is kept.
 */
NODISCARD int ctl_index_cell(const char *db, const char *folder, const char *name,
                             index_progress tick, void *arg, struct index_stats *stats,
                             struct err *err);

#endif
