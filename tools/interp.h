/* interp.h - the Python interpreter's driver program, made from python_driver.py. */
#ifndef TOOLS_INTERP_H
#define TOOLS_INTERP_H

extern const char interp_driver[]; /* NUL-terminated source */

#endif
