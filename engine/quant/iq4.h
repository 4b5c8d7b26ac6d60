/* iq4.h - the sixteen uneven levels that IQ4_NL and IQ4_XS share. */
#ifndef ENGINE_QUANT_IQ4_H
#define ENGINE_QUANT_IQ4_H

extern const signed char iq4_levels[16];

#endif
