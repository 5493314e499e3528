#!/usr/bin/env python3
"""Single opcodes against expectations written by hand from the PTX ISA, what must be reported, and what must be refused.

usage: test_translate.py FOLDER    (where it builds; TAP lines on stdout)
"""
import os
import struct
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
LANES = range(32)
NAN = 0x7fffffff


def f32(x):
    return struct.unpack('<I', struct.pack('<f', x))[0]


def f64(x):
    return struct.unpack('<Q', struct.pack('<d', x))[0]


# ---- single instructions: text, inputs by register, expected outputs by register ------------------------------------
# %f fp32, %d fp64, %r 32 bits, %l 64 bits, %h 16 bits, %p predicate. Python floats stand for their bits.
ULP = float.fromhex('0x1p-23')
CASES = [
    # rounding: 1 + 2^-24 is half way between 1 and its neighbour
    ('add.f32 %f0, %f1, %f2', {'f1': 1.0, 'f2': 2.0 ** -24}, {'f0': 1.0}),
    ('add.rn.f32 %f0, %f1, %f2', {'f1': 1.0 + ULP, 'f2': 2.0 ** -24}, {'f0': 1.0 + 2 * ULP}),
    ('add.rz.f32 %f0, %f1, %f2', {'f1': 1.0 + ULP, 'f2': 2.0 ** -24}, {'f0': 1.0 + ULP}),
    ('add.rm.f32 %f0, %f1, %f2', {'f1': -1.0, 'f2': -2.0 ** -25}, {'f0': -1.0 - ULP}),
    ('add.rp.f32 %f0, %f1, %f2', {'f1': 1.0, 'f2': 2.0 ** -40}, {'f0': 1.0 + ULP}),
    ('sub.rp.f32 %f0, %f1, %f2', {'f1': 1.0, 'f2': -2.0 ** -40}, {'f0': 1.0 + ULP}),
    ('mul.rz.f32 %f0, %f1, %f2', {'f1': 1.0 + ULP, 'f2': 1.0 + ULP}, {'f0': 1.0 + 2 * ULP}),
    ('mul.rp.f32 %f0, %f1, %f2', {'f1': 1.0 + ULP, 'f2': 1.0 + ULP}, {'f0': 1.0 + 3 * ULP}),
    ('add.rp.f64 %d0, %d1, %d2', {'d1': 1.0, 'd2': 2.0 ** -80}, {'d0': 1.0 + 2.0 ** -52}),
    ('add.sat.f32 %f0, %f1, %f2', {'f1': 0.75, 'f2': 0.5}, {'f0': 1.0}),
    ('add.sat.f32 %f0, %f1, %f2', {'f1': -0.75, 'f2': 0.5}, {'f0': 0.0}),
    ('add.sat.f32 %f0, %f1, %f2', {'f1': NAN, 'f2': 0.5}, {'f0': 0.0}),
    # one rounding: (1 + ulp)² − 1 − 2 ulp = ulp²
    ('fma.rn.f32 %f0, %f1, %f2, %f3', {'f1': 1.0 + ULP, 'f2': 1.0 + ULP, 'f3': -1.0 - 2 * ULP}, {'f0': ULP * ULP}),
    ('fma.rm.f32 %f0, %f1, %f2, %f3', {'f1': 1.0, 'f2': -2.0 ** -40, 'f3': 1.0}, {'f0': 1.0 - 2.0 ** -24}),
    ('fma.rz.f32 %f0, %f1, %f2, %f3', {'f1': 1.0, 'f2': 2.0 ** -40, 'f3': 1.0}, {'f0': 1.0}),
    ('fma.rn.f64 %d0, %d1, %d2, %d3', {'d1': 3.0, 'd2': 4.0, 'd3': 5.0}, {'d0': 17.0}),
    ('div.rn.f32 %f0, %f1, %f2', {'f1': 1.0, 'f2': 3.0}, {'f0': 0x3eaaaaab}),
    ('div.rz.f32 %f0, %f1, %f2', {'f1': 1.0, 'f2': 3.0}, {'f0': 0x3eaaaaaa}),
    ('div.approx.f32 %f0, %f1, %f2', {'f1': 1.0, 'f2': 2.0 ** 127}, {'f0': 0.0}),
    ('div.full.f32 %f0, %f1, %f2', {'f1': 6.0, 'f2': 4.0}, {'f0': 1.5}),
    ('rcp.rn.f32 %f0, %f1', {'f1': 3.0}, {'f0': 0x3eaaaaab}),
    ('rcp.rz.f32 %f0, %f1', {'f1': 3.0}, {'f0': 0x3eaaaaaa}),
    ('sqrt.rn.f32 %f0, %f1', {'f1': 2.0}, {'f0': 0x3fb504f3}),
    ('sqrt.rp.f32 %f0, %f1', {'f1': 2.0}, {'f0': 0x3fb504f4}),
    ('sqrt.rn.f64 %d0, %d1', {'d1': 9.0}, {'d0': 3.0}),
    # denormals: kept without .ftz, zeros of their sign with it, coming and going
    ('mul.f32 %f0, %f1, %f2', {'f1': 2.0 ** -130, 'f2': 1.0}, {'f0': 2.0 ** -130}),
    ('mul.ftz.f32 %f0, %f1, %f2', {'f1': -2.0 ** -130, 'f2': 1.0}, {'f0': -0.0}),
    ('mul.ftz.f32 %f0, %f1, %f2', {'f1': 2.0 ** -100, 'f2': 2.0 ** -30}, {'f0': 0.0}),
    ('fma.rn.ftz.f32 %f0, %f1, %f2, %f3', {'f1': 2.0 ** -130, 'f2': 2.0 ** 20, 'f3': 1.0}, {'f0': 1.0}),
    ('setp.gt.ftz.f32 %p0, %f1, %f2', {'f1': 2.0 ** -130, 'f2': 0.0}, {'p0': 0}),
    ('setp.gt.f32 %p0, %f1, %f2', {'f1': 2.0 ** -130, 'f2': 0.0}, {'p0': 1}),
    ('ex2.approx.ftz.f32 %f0, %f1', {'f1': -130.0}, {'f0': 0.0}),
    ('ex2.approx.ftz.f32 %f0, %f1', {'f1': 0xff800000}, {'f0': 0.0}),
    ('ex2.approx.f32 %f0, %f1', {'f1': 0.5}, {'f0': 0x3fb504f3}),
    ('lg2.approx.f32 %f0, %f1', {'f1': 8.0}, {'f0': 3.0}),
    ('rsqrt.approx.f32 %f0, %f1', {'f1': 4.0}, {'f0': 0.5}),
    ('rcp.approx.ftz.f32 %f0, %f1', {'f1': 4.0}, {'f0': 0.25}),
    ('sqrt.approx.f32 %f0, %f1', {'f1': 9.0}, {'f0': 3.0}),
    ('tanh.approx.f32 %f0, %f1', {'f1': 100.0}, {'f0': 1.0}),
    ('sin.approx.f32 %f0, %f1', {'f1': 0.0}, {'f0': 0.0}),
    ('cos.approx.f32 %f0, %f1', {'f1': 0.0}, {'f0': 1.0}),
    # minimum and maximum: a NaN loses, with .NaN it wins; −0 is below +0
    ('min.f32 %f0, %f1, %f2', {'f1': NAN, 'f2': 2.0}, {'f0': 2.0}),
    ('max.f32 %f0, %f1, %f2', {'f1': -0.0, 'f2': 0.0}, {'f0': 0.0}),
    ('min.f32 %f0, %f1, %f2', {'f1': 0.0, 'f2': -0.0}, {'f0': -0.0}),
    ('max.NaN.f32 %f0, %f1, %f2', {'f1': 2.0, 'f2': NAN}, {'f0': NAN}),
    ('neg.f32 %f0, %f1', {'f1': 0.0}, {'f0': -0.0}),
    ('abs.f32 %f0, %f1', {'f1': -3.5}, {'f0': 3.5}),
    ('copysign.f32 %f0, %f1, %f2', {'f1': -1.0, 'f2': 4.0}, {'f0': -4.0}),
    ('testp.subnormal.f32 %p0, %f1', {'f1': 2.0 ** -130}, {'p0': 1}),
    # integers wrap, and keep to their widths
    ('add.s32 %r0, %r1, %r2', {'r1': 0x7fffffff, 'r2': 1}, {'r0': 0x80000000}),
    ('add.s64 %l0, %l1, -8', {'l1': 3}, {'l0': 0xfffffffffffffffb}),
    ('sub.s16 %h0, %h1, %h2', {'h1': 1, 'h2': 2}, {'h0': 0xffff}),
    ('mul.lo.s32 %r0, %r1, %r2', {'r1': 0x10001, 'r2': 0x10001}, {'r0': 0x20001}),
    ('mul.hi.s32 %r0, %r1, %r2', {'r1': 0xffffffff, 'r2': 2}, {'r0': 0xffffffff}),
    ('mul.hi.u32 %r0, %r1, %r2', {'r1': 0xffffffff, 'r2': 2}, {'r0': 1}),
    ('mul.hi.u64 %l0, %l1, %l2', {'l1': 1 << 63, 'l2': 6}, {'l0': 3}),
    ('mul.wide.s32 %l0, %r1, %r2', {'r1': 0xffffffff, 'r2': 5}, {'l0': 0xfffffffffffffffb}),
    ('mul.wide.u32 %l0, %r1, %r2', {'r1': 0xffffffff, 'r2': 5}, {'l0': 0x4fffffffb}),
    ('mul.wide.u16 %r0, %h1, %h2', {'h1': 0xffff, 'h2': 0xffff}, {'r0': 0xfffe0001}),
    ('mad.lo.s32 %r0, %r1, %r2, %r3', {'r1': 7, 'r2': 6, 'r3': 0xffffffff}, {'r0': 41}),
    ('mad.lo.s64 %l0, %l1, %l2, %l3', {'l1': 7, 'l2': 6, 'l3': 1 << 40}, {'l0': (1 << 40) + 42}),
    ('mad.wide.s32 %l0, %r1, %r2, %l3', {'r1': 0xfffffffe, 'r2': 3, 'l3': 10}, {'l0': 4}),
    ('mad.wide.u32 %l0, %r1, %r2, %l3', {'r1': 0xfffffffe, 'r2': 3, 'l3': 10}, {'l0': 0x300000004}),
    ('mad.hi.u32 %r0, %r1, %r2, %r3', {'r1': 0x80000000, 'r2': 4, 'r3': 5}, {'r0': 7}),
    ('div.s32 %r0, %r1, %r2', {'r1': -7 & 0xffffffff, 'r2': 2}, {'r0': -3 & 0xffffffff}),
    ('rem.s32 %r0, %r1, %r2', {'r1': -7 & 0xffffffff, 'r2': 2}, {'r0': -1 & 0xffffffff}),
    ('div.u32 %r0, %r1, %r2', {'r1': -7 & 0xffffffff, 'r2': 2}, {'r0': 0x7ffffffc}),
    ('div.s32 %r0, %r1, %r2', {'r1': 0x80000000, 'r2': 0xffffffff}, {'r0': 0x80000000}),
    ('div.s64 %l0, %l1, %l2', {'l1': -9 & (2 ** 64 - 1), 'l2': 4}, {'l0': -2 & (2 ** 64 - 1)}),
    ('min.s32 %r0, %r1, %r2', {'r1': 0xffffffff, 'r2': 1}, {'r0': 0xffffffff}),
    ('min.u32 %r0, %r1, %r2', {'r1': 0xffffffff, 'r2': 1}, {'r0': 1}),
    ('max.s64 %l0, %l1, %l2', {'l1': 2 ** 64 - 1, 'l2': 0}, {'l0': 0}),
    ('neg.s64 %l0, %l1', {'l1': 1}, {'l0': 2 ** 64 - 1}),
    ('abs.s32 %r0, %r1', {'r1': 0xfffffff6}, {'r0': 10}),
    ('sad.u32 %r0, %r1, %r2, %r3', {'r1': 3, 'r2': 10, 'r3': 100}, {'r0': 107}),
    # bits
    ('and.b32 %r0, %r1, -16', {'r1': 0x1234567f}, {'r0': 0x12345670}),
    ('xor.b64 %l0, %l1, %l2', {'l1': 0xff00ff00, 'l2': 0xffff}, {'l0': 0xff0000ff}),
    ('not.b16 %h0, %h1', {'h1': 0x00ff}, {'h0': 0xff00}),
    ('not.pred %p0, %p1', {'p1': 1}, {'p0': 0}),
    ('xor.pred %p0, %p1, %p2', {'p1': 1, 'p2': 1}, {'p0': 0}),
    ('shl.b32 %r0, %r1, 32', {'r1': 5}, {'r0': 0}),
    ('shl.b64 %l0, %l1, 33', {'l1': 5}, {'l0': 5 << 33}),
    ('shr.s32 %r0, %r1, 40', {'r1': 0x80000000}, {'r0': 0xffffffff}),
    ('shr.u32 %r0, %r1, 40', {'r1': 0x80000000}, {'r0': 0}),
    ('shr.s32 %r0, %r1, 4', {'r1': 0x80000000}, {'r0': 0xf8000000}),
    ('shr.u64 %l0, %l1, 63', {'l1': 1 << 63}, {'l0': 1}),
    ('shf.l.wrap.b32 %r0, %r1, %r2, 36', {'r1': 0x80000001, 'r2': 0xabcdef01}, {'r0': 0xbcdef018}),
    ('shf.r.wrap.b32 %r0, %r1, %r2, 4', {'r1': 0x87654321, 'r2': 0xf}, {'r0': 0xf8765432}),
    ('shf.r.clamp.b32 %r0, %r1, %r2, 40', {'r1': 1, 'r2': 2}, {'r0': 2}),
    ('bfe.u32 %r0, %r1, 8, 4', {'r1': 0x00000f00}, {'r0': 15}),
    ('bfe.s32 %r0, %r1, 8, 4', {'r1': 0x00000f00}, {'r0': 0xffffffff}),
    ('bfe.s32 %r0, %r1, 28, 8', {'r1': 0x80000000}, {'r0': 0xfffffff8}),
    ('bfe.u64 %l0, %l1, 60, 4', {'l1': 0xa << 60}, {'l0': 10}),
    ('bfi.b32 %r0, %r1, %r2, 16, 8', {'r1': 0xabcd, 'r2': 0x11223344}, {'r0': 0x11cd3344}),
    ('bfi.b32 %r0, %r1, %r2, 32, 8', {'r1': 0xabcd, 'r2': 0x11223344}, {'r0': 0x11223344}),
    ('prmt.b32 %r0, %r1, %r2, 0x5410', {'r1': 0x33221100, 'r2': 0x77665544}, {'r0': 0x55441100}),
    ('prmt.b32 %r0, %r1, %r2, 0x7632', {'r1': 0x33221100, 'r2': 0x77665544}, {'r0': 0x77663322}),
    ('prmt.b32 %r0, %r1, %r2, 0x00c0', {'r1': 0x80, 'r2': 0x80}, {'r0': 0x8080ff80}),
    ('lop3.b32 %r0, %r1, %r2, %r3, 0x96', {'r1': 0xf0, 'r2': 0xcc, 'r3': 0xaa}, {'r0': 0x96}),
    ('popc.b32 %r0, %r1', {'r1': 0xf00f}, {'r0': 8}),
    ('clz.b32 %r0, %r1', {'r1': 0}, {'r0': 32}),
    ('clz.b64 %r0, %l1', {'l1': 1}, {'r0': 63}),
    ('brev.b32 %r0, %r1', {'r1': 0x00000003}, {'r0': 0xc0000000}),
    ('bfind.u32 %r0, %r1', {'r1': 0x00010000}, {'r0': 16}),
    ('bfind.s32 %r0, %r1', {'r1': 0xffffffff}, {'r0': 0xffffffff}),
    ('bfind.shiftamt.u32 %r0, %r1', {'r1': 0x00010000}, {'r0': 15}),
    # predicates
    ('setp.lt.s32 %p0, %r1, %r2', {'r1': 0xffffffff, 'r2': 0}, {'p0': 1}),
    ('setp.lt.u32 %p0, %r1, %r2', {'r1': 0xffffffff, 'r2': 0}, {'p0': 0}),
    ('setp.eq.s16 %p0, %h1, -1', {'h1': 0xffff}, {'p0': 1}),
    ('setp.ne.s64 %p0, %l1, 0', {'l1': 1 << 40}, {'p0': 1}),
    ('setp.lt.f32 %p0, %f1, %f2', {'f1': NAN, 'f2': 1.0}, {'p0': 0}),
    ('setp.ltu.f32 %p0, %f1, %f2', {'f1': NAN, 'f2': 1.0}, {'p0': 1}),
    ('setp.ne.f32 %p0, %f1, %f2', {'f1': NAN, 'f2': 1.0}, {'p0': 0}),
    ('setp.neu.f32 %p0, %f1, %f2', {'f1': NAN, 'f2': 1.0}, {'p0': 1}),
    ('setp.num.f32 %p0, %f1, %f2', {'f1': 0.0, 'f2': 1.0}, {'p0': 1}),
    ('setp.nan.f32 %p0, %f1, %f2', {'f1': NAN, 'f2': 1.0}, {'p0': 1}),
    ('setp.gt.and.s32 %p0|%p1, %r1, %r2, %p2', {'r1': 1, 'r2': 2, 'p2': 1}, {'p0': 0, 'p1': 1}),
    ('setp.eq.or.s32 %p0, %r1, %r2, !%p2', {'r1': 1, 'r2': 2, 'p2': 0}, {'p0': 1}),
    ('selp.f32 %f0, %f1, %f2, %p1', {'f1': 1.0, 'f2': 2.0, 'p1': 0}, {'f0': 2.0}),
    ('selp.b32 %r0, 0, %r2, %p1', {'r2': 9, 'p1': 1}, {'r0': 0}),
    ('set.lt.f32.s32 %f0, %r1, %r2', {'r1': 1, 'r2': 2}, {'f0': 1.0}),
    ('set.lt.u32.f32 %r0, %f1, %f2', {'f1': 1.0, 'f2': 2.0}, {'r0': 0xffffffff}),
    ('slct.b32.s32 %r0, %r1, %r2, %r3', {'r1': 1, 'r2': 2, 'r3': 0x80000000}, {'r0': 2}),
    ('@%p1 mov.u32 %r0, 7', {'p1': 1, 'r0': 1}, {'r0': 7}),
    ('@!%p1 mov.u32 %r0, 7', {'p1': 1, 'r0': 1}, {'r0': 1}),
    # moves and conversions
    ('mov.b32 {%h0, %h1}, %r1', {'r1': 0x12345678}, {'h0': 0x5678, 'h1': 0x1234}),
    ('mov.b32 %r0, {%h1, %h2}', {'h1': 0x5678, 'h2': 0x1234}, {'r0': 0x12345678}),
    ('mov.b64 {%r0, %r1}, %l1', {'l1': 0x1122334455667788}, {'r0': 0x55667788, 'r1': 0x11223344}),
    ('mov.b64 %l0, {%r1, %r2}', {'r1': 1, 'r2': 2}, {'l0': 0x200000001}),
    ('mov.b32 %f0, %r1', {'r1': 0x3f800000}, {'f0': 1.0}),
    ('mov.b32 %r0, %f1', {'f1': -2.0}, {'r0': 0xc0000000}),
    ('mov.f32 %f0, 0f3FB8AA3B', {}, {'f0': 0x3fb8aa3b}),
    ('mov.f64 %d0, 0d3FF0000000000000', {}, {'d0': 1.0}),
    ('cvt.u64.u32 %l0, %r1', {'r1': 0xffffffff}, {'l0': 0xffffffff}),
    ('cvt.s64.s32 %l0, %r1', {'r1': 0xffffffff}, {'l0': 2 ** 64 - 1}),
    ('cvt.u32.u16 %r0, %h1', {'h1': 0x8000}, {'r0': 0x8000}),
    ('cvt.s32.s16 %r0, %h1', {'h1': 0x8000}, {'r0': 0xffff8000}),
    ('cvt.s32.s8 %r0, %r1', {'r1': 0x1280}, {'r0': 0xffffff80}),
    ('cvt.u16.u32 %h0, %r1', {'r1': 0x12345}, {'h0': 0x2345}),
    ('cvt.u8.u32 %r0, %r1', {'r1': 0x1ff}, {'r0': 0xff}),
    ('cvt.sat.s8.s32 %r0, %r1', {'r1': 300}, {'r0': 127}),
    ('cvt.sat.u32.s32 %r0, %r1', {'r1': 0xffffffff}, {'r0': 0}),
    ('cvt.rzi.s32.f32 %r0, %f1', {'f1': -2.7}, {'r0': -2 & 0xffffffff}),
    ('cvt.rni.s32.f32 %r0, %f1', {'f1': 2.5}, {'r0': 2}),
    ('cvt.rmi.s32.f32 %r0, %f1', {'f1': -2.2}, {'r0': -3 & 0xffffffff}),
    ('cvt.rpi.u32.f32 %r0, %f1', {'f1': 2.2}, {'r0': 3}),
    ('cvt.rzi.s32.f32 %r0, %f1', {'f1': 3e9}, {'r0': 0x7fffffff}),
    ('cvt.rzi.u32.f32 %r0, %f1', {'f1': -1.0}, {'r0': 0}),
    ('cvt.rzi.s32.f32 %r0, %f1', {'f1': NAN}, {'r0': 0}),
    ('cvt.rzi.s64.f64 %l0, %d1', {'d1': 2.0 ** 40 + 0.5}, {'l0': 2 ** 40}),
    ('cvt.rn.f32.s32 %f0, %r1', {'r1': 0x01000001}, {'f0': 16777216.0}),
    ('cvt.rp.f32.s32 %f0, %r1', {'r1': 0x01000001}, {'f0': 16777218.0}),
    ('cvt.rn.f32.u32 %f0, %r1', {'r1': 0xffffffff}, {'f0': 4294967296.0}),
    ('cvt.rz.f32.u32 %f0, %r1', {'r1': 0xffffffff}, {'f0': 4294967040.0}),
    ('cvt.rn.f64.s64 %d0, %l1', {'l1': 2 ** 64 - 3}, {'d0': -3.0}),
    ('cvt.f64.f32 %d0, %f1', {'f1': 0.5}, {'d0': 0.5}),
    ('cvt.rn.f32.f64 %f0, %d1', {'d1': 1.0 + 2.0 ** -24}, {'f0': 1.0}),
    ('cvt.rp.f32.f64 %f0, %d1', {'d1': 1.0 + 2.0 ** -40}, {'f0': 1.0 + ULP}),
    ('cvt.sat.f32.f32 %f0, %f1', {'f1': -3.0}, {'f0': 0.0}),
    ('cvt.ftz.f32.f32 %f0, %f1', {'f1': 2.0 ** -130}, {'f0': 0.0}),
    ('cvt.rpi.f32.f32 %f0, %f1', {'f1': 1.25}, {'f0': 2.0}),
    ('cvt.rni.f32.f32 %f0, %f1', {'f1': 3.5}, {'f0': 4.0}),
    ('cvt.f32.bf16 %f0, %h1', {'h1': 0xc040}, {'f0': -3.0}),
    ('cvt.rn.bf16.f32 %h0, %f1', {'f1': 0x3f808000}, {'h0': 0x3f80}),   # half way, to even
    ('cvt.rn.bf16.f32 %h0, %f1', {'f1': 0x3f818000}, {'h0': 0x3f82}),
    ('cvt.rz.bf16.f32 %h0, %f1', {'f1': 0x3f81ffff}, {'h0': 0x3f81}),
    ('cvt.rn.bf16.f32 %h0, %f1', {'f1': 0x7fffffff}, {'h0': 0x7fff}),
    ('cvt.rn.bf16x2.f32 %r0, %f1, %f2', {'f1': 1.0, 'f2': -2.0}, {'r0': 0x3f80c000}),  # the first is the upper half
    ('cvt.rn.satfinite.e4m3x2.f32 %h0, %f1, %f2', {'f1': 1.0, 'f2': -2.0}, {'h0': 0x38c0}),  # and here
    ('cvt.rn.satfinite.e4m3x2.f32 %h0, %f1, %f2', {'f1': 17.0, 'f2': 19.0}, {'h0': 0x585a}),  # half way, to even
    ('cvt.rn.satfinite.e4m3x2.f32 %h0, %f1, %f2', {'f1': 1e9, 'f2': 0xff800000}, {'h0': 0x7efe}),  # ±448
    ('cvt.rn.satfinite.e4m3x2.f32 %h0, %f1, %f2', {'f1': 0x7fc00000, 'f2': 464.0}, {'h0': 0x7f7e}),
    ('cvt.rn.satfinite.e4m3x2.f32 %h0, %f1, %f2', {'f1': 2.0 ** -10, 'f2': 3 * 2.0 ** -10}, {'h0': 0x0002}),
    ('cvt.rn.satfinite.e4m3x2.f32 %h0, %f1, %f2', {'f1': 15 * 2.0 ** -10, 'f2': -0.0}, {'h0': 0x0880}),  # up to 2^-6
]

# ---- bodies of several instructions: text, inputs, outputs; a list is one value per lane -----------------------------
POPULATION = [bin(lane).count('1') for lane in LANES]
BODIES = [
    ('st.shared.v4, ld.shared.v2 and a generic load of the same bytes', '''
        mov.u64 %l9, tile; cvta.shared.u64 %l8, %l9; mov.u32 %r9, tile;
        st.shared.v4.u32 [%r9], {%r1, %r2, %r3, %r4};
        ld.shared.v2.u32 {%r5, %r6}, [%r9+8];
        ld.u32 %r7, [%l8+4];
        ld.shared.s8 %r8, [%r9+1];
        ld.shared.u8 %h1, [%r9+1];
        ''', {'r1': 0x8000ff12, 'r2': 2, 'r3': 3, 'r4': 4},
     {'r5': 3, 'r6': 4, 'r7': 2, 'r8': 0xffffffff, 'h1': 0xff}),
    ('cvta.to.shared is the inverse of cvta.shared', '''
        mov.u64 %l9, tile; cvta.shared.u64 %l8, %l9; cvta.to.shared.u64 %l7, %l8; sub.s64 %l6, %l7, %l9;
        isspacep.shared %p1, %l8; isspacep.global %p2, %l8; isspacep.global %p3, %l0;
        ''', {}, {'l6': 0, 'p1': 1, 'p2': 0, 'p3': 1}),
    ('shared memory is NaN before anybody writes', 'mov.u32 %r9, tile; ld.shared.f32 %f1, [%r9+64]; setp.nan.f32 %p1, %f1, %f1;',
     {}, {'p1': 1}),
    ('bra and a loop', '''
        mov.u32 %r1, 0; mov.u32 %r2, 0;
        AGAIN: add.s32 %r1, %r1, 1; add.s32 %r2, %r2, %r1; setp.lt.s32 %p1, %r1, 10; @%p1 bra AGAIN;
        ''', {}, {'r2': 55}),
    ('a nested scope has registers of its own', '''
        mov.u32 %r1, 3; { .reg .b32 %r1; mov.u32 %r1, 4; add.s32 %r2, %r1, 1; } add.s32 %r3, %r1, 0;
        ''', {}, {'r2': 5, 'r3': 3}),
    ('bar.sync orders shared memory', '''
        mov.u32 %r9, tile; mov.u32 %r8, %tid.x; shl.b32 %r7, %r8, 2; add.s32 %r6, %r9, %r7; st.shared.u32 [%r6], %r8;
        bar.sync 0; xor.b32 %r5, %r7, 124; add.s32 %r5, %r9, %r5; ld.shared.u32 %r1, [%r5];
        ''', {}, {'r1': [31 - lane for lane in LANES]}),
    ('shfl.sync.bfly', 'mov.u32 %r1, %laneid; shfl.sync.bfly.b32 %r2|%p1, %r1, 5, 31, -1;', {},
     {'r2': [lane ^ 5 for lane in LANES], 'p1': [1] * 32}),
    ('shfl.sync.down keeps its own value past the end', 'mov.u32 %r1, %laneid; shfl.sync.down.b32 %r2|%p1, %r1, 3, 31, -1;',
     {}, {'r2': [lane + 3 if lane < 29 else lane for lane in LANES], 'p1': [int(lane < 29) for lane in LANES]}),
    ('shfl.sync.up in segments of 8', 'mov.u32 %r1, %laneid; shfl.sync.up.b32 %r2|%p1, %r1, 1, 0x1800, -1;',
     {}, {'r2': [lane - 1 if lane % 8 else lane for lane in LANES], 'p1': [int(lane % 8 > 0) for lane in LANES]}),
    ('shfl.sync.idx in segments of 16', 'mov.u32 %r1, %laneid; shfl.sync.idx.b32 %r2, %r1, 3, 0x101f, -1;',
     {}, {'r2': [lane // 16 * 16 + 3 for lane in LANES]}),
    ('vote.sync', '''
        mov.u32 %r1, %laneid; setp.gt.u32 %p1, %r1, 29; vote.sync.any.pred %p2, %p1, -1; vote.sync.all.pred %p3, %p1, -1;
        vote.sync.ballot.b32 %r2, %p1, -1; vote.sync.uni.pred %p4, %p1, -1;
        ''', {}, {'p2': [1] * 32, 'p3': [0] * 32, 'r2': [0xc0000000] * 32, 'p4': [0] * 32}),
    ('redux.sync', 'mov.u32 %r1, %laneid; redux.sync.add.u32 %r2, %r1, -1; redux.sync.max.s32 %r3, %r1, -1;',
     {}, {'r2': [496] * 32, 'r3': [31] * 32}),
    ('atom.add and atom.min of shared and global memory', '''
        mov.u32 %r9, tile; mov.u32 %r8, %laneid; setp.ne.u32 %p1, %r8, 0; @!%p1 st.shared.u32 [%r9], 0;
        @!%p1 st.global.u32 [%l1+2048], 1000; bar.sync 0;
        red.shared.add.u32 [%r9], %r8; atom.global.min.s32 %r7, [%l1+2048], %r8; bar.sync 0;
        ld.shared.u32 %r1, [%r9]; ld.global.u32 %r2, [%l1+2048];
        ''', {}, {'r1': [496] * 32, 'r2': [0] * 32}),
    ('atom.cas and atom.inc', '''
        mov.u32 %r9, tile; st.shared.u32 [%r9], 7; atom.shared.cas.b32 %r1, [%r9], 7, 9; atom.shared.cas.b32 %r2, [%r9], 7, 5;
        atom.shared.inc.u32 %r3, [%r9], 9; ld.shared.u32 %r4, [%r9];
        ''', {}, {'r1': 7, 'r2': 9, 'r3': 9, 'r4': 0}),
    # Matrix m is 8 rows of 8 halfwords m·64 + row·8 + column at tile + 128 m; lane l brings the address of row l % 8 of
    # matrix l / 8. Lane l receives columns 2 (l % 4) and 1 more of row l / 4; with .trans rows and columns exchanged.
    ('ldmatrix.x4', 'FILL_TILE ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1, %r2, %r3, %r4}, [%r20];', {},
     {'r%d' % (m + 1): [(m * 64 + lane // 4 * 8 + lane % 4 * 2) * 0x10001 + 0x10000 for lane in LANES] for m in range(4)}),
    ('ldmatrix.x4.trans', 'FILL_TILE ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%r1, %r2, %r3, %r4}, [%r20];', {},
     {'r%d' % (m + 1): [(m * 64 + lane % 4 * 16 + lane // 4) * 0x10001 + 0x80000 for lane in LANES] for m in range(4)}),
    ('ldmatrix.x2', 'FILL_TILE ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r1, %r2}, [%r20];', {},
     {'r%d' % (m + 1): [(m * 64 + lane // 4 * 8 + lane % 4 * 2) * 0x10001 + 0x10000 for lane in LANES] for m in range(2)}),
    # A[i][k] = i + 1 where k = 3, else 0; B[k][j] = j + 1 where k = 3; C = 100: D[i][j] = 100 + (i + 1)(j + 1).
    # a0 holds columns 2 (l % 4), + 1 of row l / 4: k = 3 is the upper half of lanes with l % 4 = 1. a1: row + 8.
    ('mma.m16n8k16', '''
        mov.u32 %r1, %laneid; shr.u32 %r2, %r1, 2; and.b32 %r3, %r1, 3; setp.eq.s32 %p1, %r3, 1;
        add.s32 %r4, %r2, 1; cvt.rn.f32.s32 %f1, %r4; cvt.rn.bf16.f32 %h1, %f1; mov.u16 %h0, 0; mov.b32 %r5, {%h0, %h1};
        add.s32 %r4, %r2, 9; cvt.rn.f32.s32 %f1, %r4; cvt.rn.bf16.f32 %h1, %f1; mov.b32 %r6, {%h0, %h1};
        selp.b32 %r7, %r5, 0, %p1; selp.b32 %r8, %r6, 0, %p1; mov.u32 %r9, 0; mov.f32 %f9, 0f42C80000;
        mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1, %f2, %f3, %f4}, {%r7, %r8, %r9, %r9}, {%r7, %r9}, {%f9, %f9, %f9, %f9};
        ''', {}, {'f1': [100.0 + (lane // 4 + 1) * (lane % 4 * 2 + 1) for lane in LANES],
                  'f2': [100.0 + (lane // 4 + 1) * (lane % 4 * 2 + 2) for lane in LANES],
                  'f3': [100.0 + (lane // 4 + 9) * (lane % 4 * 2 + 1) for lane in LANES],
                  'f4': [100.0 + (lane // 4 + 9) * (lane % 4 * 2 + 2) for lane in LANES]}),
    ('cp.async lands with the wait that covers its group', '''
        mov.u32 %r9, tile; cp.async.cg.shared.global [%r9], [%l0], 16; cp.async.commit_group;
        cp.async.ca.shared.global [%r9+16], [%l0+8], 4; cp.async.commit_group;
        ld.shared.u32 %r1, [%r9]; cp.async.wait_group 1; ld.shared.u32 %r2, [%r9]; ld.shared.u32 %r3, [%r9+16];
        cp.async.wait_group 0; ld.shared.u32 %r4, [%r9+16]; ld.shared.u32 %r5, [%r9+8];
        ''', {'r10': 0x11, 'r11': 0x22},
     {'r1': 0xffffffff, 'r2': 0x11, 'r3': 0xffffffff, 'r4': 0x22, 'r5': 0x22}),
    ('cp.async fills with zeros what the source does not have', '''
        mov.u32 %r9, tile; mov.u32 %r8, 0; mov.u32 %r7, 4;
        cp.async.cg.shared.global [%r9], [%l0], 16, %r8; cp.async.cg.shared.global [%r9+16], [%l0], 16, %r7; cp.async.wait_all;
        ld.shared.u32 %r1, [%r9]; ld.shared.u32 %r2, [%r9+16]; ld.shared.u32 %r3, [%r9+20];
        ''', {'r10': 0x11, 'r11': 0x22}, {'r1': 0, 'r2': 0x11, 'r3': 0}),
    ('local memory', '''
        .local .align 16 .b8 depot_of_case[32]; .reg .b64 %SP; .reg .b64 %SPL;
        mov.u64 %SPL, depot_of_case; cvta.local.u64 %SP, %SPL; add.u64 %l5, %SP, 8; add.u64 %l6, %SPL, 8;
        st.local.v2.u32 [%l6], {%r1, %r2}; ld.u32 %r3, [%l5+4]; ld.local.u32 %r4, [%l6]; isspacep.local %p1, %l5;
        ''', {'r1': 5, 'r2': 6}, {'r3': 6, 'r4': 5, 'p1': 1}),
    ('constants of the module', 'mov.u64 %l5, table; ld.const.u32 %r1, [%l5+4]; ld.const.u32 %r2, [table+8];', {}, {'r1': 20, 'r2': 30}),
    ('vprintf returns the number of arguments', '''
        .local .align 8 .b8 arguments_of_case[24]; mov.u64 %l5, arguments_of_case; mov.f64 %d1, 0d4004000000000000;
        st.local.u32 [%l5], 7; st.local.f64 [%l5+8], %d1; mov.u64 %l6, text; cvta.global.u64 %l7, %l6;
        { .param .b64 param0; st.param.b64 [param0+0], %l7; .param .b64 param1; st.param.b64 [param1+0], %l5;
          .param .b32 retval0; call.uni (retval0), vprintf, (param0, param1); ld.param.b32 %r1, [retval0+0]; }
        ''', {}, {'r1': 2}),
]

# ---- what a run must report: name, body, text -------------------------------------------------------------------------
REPORTED = [
    ('a misaligned shared load', 'mov.u32 %r9, tile; ld.shared.v4.u32 {%r1, %r2, %r3, %r4}, [%r9+8];', 'misaligned access'),
    ('a misaligned global store', 'st.global.u32 [%l1+2], %r31;', 'misaligned access'),
    ('a shared load past its array', 'mov.u32 %r9, tile; ld.shared.u32 %r1, [%r9+4096];', 'outside of shared memory'),
    ('a shared load before its array', 'mov.u32 %r9, tile; ld.shared.u32 %r1, [%r9+-4];', 'outside of shared memory'),
    ('a vector half outside', 'mov.u32 %r9, tile; st.shared.v2.u32 [%r9+4092], {%r31, %r31};', 'misaligned access'),
    ('a global load past its allocation', 'ld.global.u32 %r1, [%l0+4096];', 'outside of global memory'),
    ('a global store at 0', 'mov.u64 %l5, 0; st.global.u32 [%l5], %r31;', 'outside of global memory'),
    ('a generic load outside of everything', 'mov.u64 %l5, 4096; ld.u32 %r1, [%l5];', 'outside of global memory'),
    ('a local store past its array', '.local .align 8 .b8 depot_of_case[8]; mov.u64 %l5, depot_of_case; st.local.u32 [%l5+8], %r31;',
     'outside of local memory'),
    ('a row of ldmatrix that is not aligned', 'mov.u32 %r9, tile; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [%r9+8];', 'misaligned access'),
    ('cp.async from outside', 'mov.u32 %r9, tile; cp.async.cg.shared.global [%r9], [%l0+4096], 16;', 'outside of global memory'),
    ('cvta.to.shared of a global address', 'cvta.to.shared.u64 %l5, %l0;', 'is not an address of shared memory'),
    ('trap', 'trap;', 'trap'),
    ('a division by zero', 'mov.u32 %r1, 0; div.u32 %r2, %r31, %r1;', 'division by zero'),
    ('a barrier that not all threads reach', 'setp.eq.s32 %p1, %r31, 3; @%p1 bra LEAVE; bar.sync 0; LEAVE: ;', 'have left the kernel'),
    ('lanes at different shuffles', '''setp.eq.s32 %p1, %r31, 3; @%p1 bra OTHER; shfl.sync.bfly.b32 %r1, %r31, 1, 31, -1; bra LEAVE;
        OTHER: shfl.sync.bfly.b32 %r1, %r31, 1, 31, -1; LEAVE: ;''', 'different operations'),
]

# ---- what the translator must refuse by name ---------------------------------------------------------------------------
REFUSED = [
    ('tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%l0, {%f1, %f2}];', 'opcode tex.2d.v4.f32.f32'),
    ('add.rn.f16 %h0, %h1, %h2;', 'opcode add.rn.f16'),
    ('mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%f1, %f2, %f3, %f4}, {%r1, %r2}, {%r3}, {%f1, %f2, %f3, %f4};',
     'opcode mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32'),
    ('atom.global.add.f32 %f0, [%l0], %f1;', 'opcode atom.global.add.f32'),
    ('cvt.rna.tf32.f32 %r0, %f1;', 'opcode cvt.rna.tf32.f32'),
    ('bar.sync 1;', 'barrier 1'),
    ('call.uni (retval0), other_function, (param0);', 'call of other_function'),
    ('mov.u32 %r0, %clock;', 'operand %clock'),
    ('add.s32 %r0, %undeclared, 1;', 'operand %undeclared'),
    ('mov.u32 %h0, %r1;', '%h0, a .b16, written as .u32'),
    ('ld.global.v4.u32 {%r0, %r1}, [%l0];', 'a vector of 2 registers'),
    ('.tex .u64 nothing;', '.tex .u64 nothing'),
]

HEAD = '''.version 9.0
.target sm_90
.address_size 64
.extern .func (.param .b32 func_retval0) vprintf
(
    .param .b64 vprintf_param_0,
    .param .b64 vprintf_param_1
)
;
.shared .align 16 .b8 tile[4096];
.const .align 4 .u32 table[3] = {10, 20, 30};
.global .align 1 .b8 text[22] = {35, 32, 116, 104, 114, 101, 97, 100, 32, 37, 100, 58, 32, 37, 46, 50, 102, 10, 0, 0, 0, 0};
'''  # "# thread %d: %.2f\n"
FILL_TILE = '''
        mov.u32 %r9, tile; mov.u32 %r8, %laneid; shl.b32 %r10, %r8, 4; add.s32 %r20, %r9, %r10; mov.u32 %r11, 0;
        FILL: shl.b32 %r12, %r8, 3; add.s32 %r12, %r12, %r11; cvt.u16.u32 %h1, %r12; shl.b32 %r13, %r11, 1;
        add.s32 %r13, %r13, %r20; st.shared.u16 [%r13], %h1; add.s32 %r11, %r11, 1; setp.lt.s32 %p1, %r11, 8; @%p1 bra FILL;
        bar.sync 0;'''
STORE = {'f': 'f32', 'd': 'f64', 'r': 'u32', 'l': 'u64', 'h': 'u16'}


def bits_of(register, value):
    if not isinstance(value, float):
        return value
    return f64(value) if register[0] == 'd' else f32(value)


def entry(name, body, inputs, outputs):
    """A kernel that loads the inputs of its thread, runs the body and stores its outputs, 8 bytes each."""
    code = ['.visible .entry %s(' % name, '    .param .u64 %s_param_0,' % name, '    .param .u64 %s_param_1' % name, ')', '{',
            '.reg .pred %p<8>;', '.reg .b16 %h<8>;', '.reg .f32 %f<12>;', '.reg .f64 %d<8>;', '.reg .b32 %r<40>;',
            '.reg .b64 %l<32>;', 'ld.param.u64 %l30, [{0}_param_0];'.format(name), 'ld.param.u64 %l31, [{0}_param_1];'.format(name),
            'mov.u32 %r31, %tid.x;', 'mad.wide.u32 %l20, %r31, {0}, %l30;'.format(8 * len(inputs)),
            'mad.wide.u32 %l21, %r31, {0}, %l31;'.format(8 * len(outputs))]
    for i, register in enumerate(inputs):
        if register[0] == 'p':
            code += ['ld.global.u32 %%r39, [%%l20+%d];' % (8 * i), 'setp.ne.u32 %%%s, %%r39, 0;' % register]
        else:
            code.append('ld.global.%s %%%s, [%%l20+%d];' % (STORE[register[0]], register, 8 * i))
    if 'l1' not in inputs and 'l0' not in inputs:
        code += ['mov.u64 %l0, %l30;', 'mov.u64 %l1, %l31;']
    code += ['.loc 1 %d 1' % 77, body]
    code.append('mov.u64 %l22, 0; st.global.u64 [%l21], %l22;' if outputs else '')
    for i, register in enumerate(outputs):
        code.append('mov.u64 %%l22, 0; st.global.u64 [%%l21+%d], %%l22;' % (8 * i))
        if register[0] == 'p':
            code += ['selp.u32 %%r39, 1, 0, %%%s;' % register, 'st.global.u32 [%%l21+%d], %%r39;' % (8 * i)]
        else:
            code.append('st.global.%s [%%l21+%d], %%%s;' % (STORE[register[0]], 8 * i, register))
    return '\n'.join(code + ['ret;', '}', ''])


def translate(folder, name, text):
    path = os.path.join(folder, name + '.ptx')
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)
    return subprocess.run([sys.executable, os.path.join(HERE, 'translate.py'), '--source', 'cases.cu', '--arch', 'sm_80', path,
                           os.path.join(folder, name + '.cpp')], capture_output=True, text=True, check=False)


failed = 0


def check(good, name, why=''):
    global failed
    print('%s %s%s' % ('ok' if good else 'not ok', name, '' if good else ': ' + why))
    failed += not good


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    cases = [(text, text + ';', i, o, 1) for text, i, o in CASES]
    cases += [(name, body, i, o, 32 if any(isinstance(x, list) for x in o.values()) else 1) for name, body, i, o in BODIES]
    text, lines = HEAD, []
    for number, (name, body, inputs, outputs, threads) in enumerate(cases):
        text += entry('case_%d' % number, body.replace('FILL_TILE', FILL_TILE), inputs, outputs)
        words = [x & (2 ** 64 - 1) for _ in range(threads) for x in (bits_of(r, v) for r, v in inputs.items())]
        lines.append('case_%d %d 0 %d %d %s' % (number, threads, max(len(words), 1), max(threads * len(outputs), 300),
                                               ' '.join('%x' % w for w in words) or '0'))
    for number, (name, body, _) in enumerate(REPORTED):
        text += entry('report_%d' % number, body, {}, {})
    result = translate(folder, 'cases', text)
    if result.returncode:
        check(False, 'the cases are translated', result.stderr)
        return 1
    compiler = os.environ.get('CXX', 'g++').split()
    flags = ['-std=c++17', '-O1', '-march=native', '-ffp-contract=off', '-fno-strict-aliasing', '-w', '-DCPU_PTX', '-I' + ROOT + '/dev/cpu/include',
             '-I' + ROOT + '/dev/cpu', '-I' + HERE]
    program = os.path.join(folder, 'run_case')
    sources = [os.path.join(folder, 'cases.cpp'), HERE + '/run_case.cpp', HERE + '/run.cpp'] + \
        [ROOT + '/dev/cpu/%s.cpp' % x for x in ('fiber', 'pool', 'runtime', 'ptx')]
    subprocess.run(compiler + flags + sources + ['-o', program, '-lpthread'], check=True)
    environment = dict(os.environ, CPU_THREADS='1')
    for order in ('forward', 'reverse', '7'):
        run = subprocess.run([program], input='\n'.join(lines), capture_output=True, text=True, check=False,
                             env=dict(environment, CPU_ORDER=order))
        printed = [x for x in run.stdout.split('\n') if x.startswith('#')]
        rows = [x.split() for x in run.stdout.split('\n') if x and not x.startswith('#')]
        if len(rows) != len(cases):
            check(False, 'order %s: all cases ran' % order, 'case %s: %s' % (cases[len(rows)][0], run.stderr))
            continue
        wrong = 0
        for (name, body, inputs, outputs, threads), row in zip(cases, rows):
            for i, (register, value) in enumerate(outputs.items()):
                expected = [bits_of(register, v) & (2 ** 64 - 1) for v in (value if isinstance(value, list) else [value])]
                got = [int(row[t * len(outputs) + i], 16) for t in range(threads)]
                if got != expected:
                    wrong += 1
                    check(False, '%s, order %s' % (name, order), '%%%s is %s, expected %s' % (
                        register, ['%x' % x for x in got], ['%x' % x for x in expected]))
        if order == 'forward':
            for (name, _, _, _, _) in cases:
                if not wrong:
                    check(True, name)
            check(printed == ['# thread 7: 2.50'], 'vprintf prints', repr(printed))
        else:
            check(not wrong, 'order %s: the same %d cases' % (order, len(cases)), '%d differ' % wrong)
    for number, (name, _, expected) in enumerate(REPORTED):
        run = subprocess.run([program], input='report_%d 32 0 1 1 0' % number, capture_output=True, text=True, check=False,
                             env=environment)
        good = run.returncode != 0 and expected in run.stderr and 'report_%d' % number in run.stderr and \
            (folder + '/cases.ptx:') in run.stderr
        check(good, '%s is reported with kernel and line' % name, run.stderr)
    for number, (body, expected) in enumerate(REFUSED):
        result = translate(folder, 'refused_%d' % number, HEAD + entry('refused', body, {}, {}))
        check(result.returncode != 0 and 'refused_%d.ptx:' % number in result.stderr and 'unknown ' + expected in result.stderr and
              result.stderr.count('\n') == 1 and not os.path.exists(os.path.join(folder, 'refused_%d.cpp' % number)),
              'refused by name: ' + expected, result.stderr)
    return failed != 0


if __name__ == '__main__':
    sys.exit(main())
