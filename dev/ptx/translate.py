#!/usr/bin/env python3
"""Translates a PTX module into C++ that dev/cpu's emulator runs: one function per kernel, one statement per instruction.

usage: translate.py --source seal_kernels/loss.cu --arch sm_90 loss.ptx loss.cpp

What is known is in the tables of this file: @opcode holds a pattern for a whole opcode with all of its modifiers, so
an instruction is either translated with everything it says, or it stops the translation by file, line and name. Semantics
follow NVIDIA's "Parallel Thread Execution ISA"; what is more than an operator of C++ is a function of ptx_run.h.
docs/ptx.md says what such a run proves.
"""
import argparse
import re
import sys

# ---- types ---------------------------------------------------------------------------------------------------------
# PTX type: C++ type, bytes
TYPES = {
    'pred': ('bool', 1),
    'b8': ('uint8_t', 1), 'u8': ('uint8_t', 1), 's8': ('int8_t', 1),
    'b16': ('uint16_t', 2), 'u16': ('uint16_t', 2), 's16': ('int16_t', 2),
    'b32': ('uint32_t', 4), 'u32': ('uint32_t', 4), 's32': ('int32_t', 4),
    'b64': ('uint64_t', 8), 'u64': ('uint64_t', 8), 's64': ('int64_t', 8),
    'f32': ('float', 4), 'f64': ('double', 8),
}
C = {name: row[0] for name, row in TYPES.items()}
BYTES = {name: row[1] for name, row in TYPES.items()}
UNSIGNED = {1: 'uint8_t', 2: 'uint16_t', 4: 'uint32_t', 8: 'uint64_t'}
WIDE = {'s16': 's32', 'u16': 'u32', 's32': 's64', 'u32': 'u64'}  # what mul.wide and mad.wide give

SPECIAL = {'%laneid': 'cpu_lane()', '%warpid': '(ptx_thread() / 32)', '%WARP_SZ': '32', 'WARP_SZ': '32',
           '%lanemask_lt': '((1u << cpu_lane()) - 1)', '%lanemask_eq': '(1u << cpu_lane())'}
for register, variable in (('tid', 'threadIdx'), ('ntid', 'blockDim'), ('ctaid', 'blockIdx'), ('nctaid', 'gridDim')):
    for axis in 'xyz':
        SPECIAL['%%%s.%s' % (register, axis)] = '(uint32_t)%s.%s' % (variable, axis)


class Unknown(Exception):
    """What this translator has no row for."""


# ---- reading a module ----------------------------------------------------------------------------------------------
def without_comments(text):
    """Spaces in place of comments, so that lines keep their numbers."""
    return re.sub(r'//[^\n]*|/\*.*?\*/', lambda m: re.sub(r'[^\n]', ' ', m.group()), text, flags=re.S)


def split_commas(text):
    """Operands: commas outside of braces, brackets and parentheses."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        if c in '{[(':
            depth += 1
        elif c in '}])':
            depth -= 1
        elif c == ',' and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    tail = text[start:].strip()
    return parts + [tail] if tail else parts


def statements(text, line):
    """(line, statement) of a body: '{', '}', 'label:' or what ends in a semicolon. .loc ends with its line."""
    i, n = 0, len(text)
    while i < n:
        c = text[i]
        if c == '\n':
            line += 1
            i += 1
        elif c.isspace() or c == ';':
            i += 1
        elif c in '{}':
            yield line, c
            i += 1
        elif re.compile(r'\.(?:loc|file)\s').match(text, i):
            end = text.find('\n', i)
            i = n if end < 0 else end
        else:
            label = re.compile(r'[$\w]+:(?!:)').match(text, i)
            if label:
                yield line, label.group()
                i = label.end()
                continue
            end = text.find(';', i)
            if end < 0:
                raise Unknown(line, text[i:i + 60].strip())
            yield line, ' '.join(text[i:end].split())
            line += text.count('\n', i, end)
            i = end + 1


class Array:
    """A variable of the module or of a kernel: .shared, .global, .const, .local or .param"""
    pattern = re.compile(r'(?:\.(?:extern|visible|weak)\s+)*\.(shared|global|const|local|param)\s+'
                         r'(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([$\w]+)\s*(\[(\d*)\])?\s*(?:=\s*(.*))?$', re.S)

    def __init__(self, match):
        self.space, align, self.type, self.name, array, count, self.initial = match.groups()
        self.size = BYTES[self.type] * (int(count or 0) if array else 1)
        self.align = int(align or BYTES[self.type])
        self.c_name = 'v_' + re.sub(r'\W', '_', self.name)


def c_label(name):
    return 'L_' + re.sub(r'\W', '_', name)


# ---- one kernel ----------------------------------------------------------------------------------------------------
class Kernel:
    def __init__(self, module, name, parameters, line):
        self.module, self.name = module, name
        self.scopes = [{}]       # register → PTX type, per nested scope
        self.code = []           # lines of C++
        self.line = line
        self.sites = 0           # global accesses: each remembers the allocation that it met last
        self.depot = None        # .local memory
        self.call_params = [{}]  # .param variables of a call, per nested scope
        self.labels = set()
        self.parameters = {}     # name → (offset, bytes)
        self.parameter_bytes = 0
        for text in split_commas(parameters):
            match = Array.pattern.match(re.sub(r'\s\.(?:ptr|noalias)\b(?:\s+\.(?:global|align \d+))*', '', text))
            if not match:
                raise Unknown(line, 'parameter ' + text)
            array = Array(match)
            at = (self.parameter_bytes + array.align - 1) // array.align * array.align
            self.parameters[array.name] = (at, array.size)
            self.parameter_bytes = at + array.size
        self.shared = {}         # name → Array, those that this kernel names

    # -- operands
    def register(self, name):
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return None

    def c_register(self, name):
        return 'r_' + re.sub(r'\W', '_', name.lstrip('%'))

    def shared_offset(self, name):
        array = self.module.shared[name]
        self.shared[name] = array
        return 'AT_' + array.c_name

    def read(self, operand, type_name):
        """A C++ expression of the PTX type for a register, an immediate, a special register or an address."""
        want, size = TYPES[type_name]
        if operand.startswith('!'):
            return '!' + self.read(operand[1:], 'pred')
        declared = self.register(operand)
        if declared:
            name = self.c_register(operand)
            have, have_size = TYPES[declared]
            if have == want:
                return name
            if 'pred' in (declared, type_name):
                raise Unknown(self.line, 'predicate %s read as .%s' % (operand, type_name))
            if have_size == size:
                return 'bits<%s>(%s)' % (want, name) if 'f' in declared + type_name else '(%s)%s' % (want, name)
            if have_size < size or type_name[0] == 'f':
                raise Unknown(self.line, '%s, a .%s, read as .%s' % (operand, declared, type_name))
            return '(%s)%s' % (want, 'bits<%s>(%s)' % (UNSIGNED[have_size], name) if declared[0] == 'f' else name)
        if operand in SPECIAL:
            return '(%s)%s' % (want, SPECIAL[operand])
        if re.fullmatch(r'0[fF][0-9a-fA-F]{8}', operand):
            bits = '0x%su' % operand[2:]
            return 'bits<float>(%s)' % bits if want == 'float' else '(%s)%s' % (want, bits)
        if re.fullmatch(r'0[dD][0-9a-fA-F]{16}', operand):
            bits = '0x%sull' % operand[2:]
            return 'bits<double>(%s)' % bits if want == 'double' else '(%s)%s' % (want, bits)
        if re.fullmatch(r'-?(\d+|0[xX][0-9a-fA-F]+)U?', operand):
            number = int(operand.rstrip('U'), 0) & (2 ** 64 - 1)
            if type_name[0] == 'f':
                return 'bits<%s>((%s)%dull)' % (want, UNSIGNED[size], number)
            return '(%s)%dull' % (want, number)
        address = self.symbol(operand)
        if address:
            return '(%s)(%s)' % (want, address)
        raise Unknown(self.line, 'operand ' + operand)

    def symbol(self, name):
        base, _, offset = name.partition('+')
        plus = ' + (%s)' % offset if offset else ''
        if base in self.module.shared:
            return self.shared_offset(base) + plus
        if base in self.module.globals:
            return '(uint64_t)(uintptr_t)%s%s' % (self.module.globals[base].c_name, plus)
        if self.depot and base == self.depot.name:
            return '(uint64_t)(uintptr_t)depot' + plus
        if base in self.parameters:
            return '(uint64_t)(uintptr_t)(params + %d)%s' % (self.parameters[base][0], plus)
        return None

    def write(self, destination, type_name, expression):
        """An assignment of a value of the PTX type; a wider register is filled by sign or with zeros."""
        if destination == '_':
            return '(void)(%s);' % expression
        declared = self.register(destination)
        if not declared:
            raise Unknown(self.line, 'destination ' + destination)
        name = self.c_register(destination)
        have, have_size = TYPES[declared]
        want, size = TYPES[type_name]
        if 'pred' in (declared, type_name) and declared != type_name:
            raise Unknown(self.line, 'predicate %s written as .%s' % (destination, type_name))
        if have == want:
            return '%s = %s;' % (name, expression)
        if have_size < size:
            raise Unknown(self.line, '%s, a .%s, written as .%s' % (destination, declared, type_name))
        if declared[0] == 'f' or type_name[0] == 'f':
            if have_size != size:
                raise Unknown(self.line, '%s, a .%s, written as .%s' % (destination, declared, type_name))
            return '%s = bits<%s>((%s)(%s));' % (name, have, want, expression)
        return '%s = (%s)(%s)(%s);' % (name, have, want, expression)

    def address(self, operand, space, size):
        """A checked char* for [register], [symbol], [register+offset] …"""
        inner = operand.strip()
        if not (inner.startswith('[') and inner.endswith(']')):
            raise Unknown(self.line, 'address ' + operand)
        match = re.fullmatch(r'([%$\w.]+)\s*(?:\+\s*(-?\d+))?', inner[1:-1].strip())
        if not match:
            raise Unknown(self.line, 'address ' + operand)
        base, offset = match.group(1), int(match.group(2) or 0)
        if space == 'param':
            for scope in reversed(self.call_params):
                if base in scope:
                    return '(%s + %d)' % (scope[base], offset)
            if base in self.parameters:
                at, total = self.parameters[base]
                if offset + size > total:
                    raise Unknown(self.line, 'parameter read past its end: ' + operand)
                return '(params + %d)' % (at + offset)
            raise Unknown(self.line, 'parameter ' + base)
        declared = self.register(base)
        value = self.read(base, declared if declared in ('b32', 'b64', 'u32', 'u64', 's32', 's64') else 'b64')
        if space == 'shared':
            return 'ptx_shared((uint32_t)%s + %du, %d, %d)' % (value, offset & 0xffffffff, size, self.line)
        value = '(uint64_t)%s + %dull' % (value, offset & (2 ** 64 - 1))
        if space == 'local':
            return 'ptx_local(%s, %d, depot, sizeof depot, %d)' % (value, size, self.line)
        self.sites += 1
        if space in ('global', 'const'):
            return 'ptx_global(%s, %d, %d, &sites[%d])' % (value, size, self.line, self.sites - 1)
        depot = 'depot, sizeof depot' if self.depot else 'NULL, 0'
        return 'ptx_generic(%s, %d, %s, %d, &sites[%d])' % (value, size, depot, self.line, self.sites - 1)

    # -- statements
    def statement(self, line, text):
        self.line = line
        if text == '{':
            self.scopes.append({})
            self.call_params.append({})
            self.code.append('{')
        elif text == '}':
            self.scopes.pop()
            self.call_params.pop()
            self.code.append('}')
        elif text.endswith(':'):
            if text in self.labels:
                raise Unknown(line, 'a second label ' + text)
            self.labels.add(text)
            self.code.append(c_label(text[:-1]) + ':;')
        elif text.startswith('.'):
            self.directive(text)
        else:
            self.code.append(self.instruction(text))

    def directive(self, text):
        match = re.fullmatch(r'\.reg\s+\.(\w+)\s+(.*)', text)
        if match and match.group(1) in TYPES:
            names = []
            for name in split_commas(match.group(2)):
                many = re.fullmatch(r'(%?[$\w]+)<(\d+)>', name)
                names += ['%s%d' % (many.group(1), i) for i in range(int(many.group(2)))] if many else [name]
            for name in names:
                self.scopes[-1][name] = match.group(1)
            self.code.append('%s %s;' % (C[match.group(1)], ', '.join(self.c_register(n) for n in names)))
            return
        match = Array.pattern.fullmatch(text)
        if match:
            array = Array(match)
            if array.space == 'local':
                if self.depot:
                    raise Unknown(self.line, 'a second .local array ' + array.name)
                self.depot = array
                return
            if array.space == 'shared':
                self.module.add_shared(array, self.line)
                return
            if array.space == 'param':
                name = 'p_%s_%d' % (array.name, self.line)
                self.call_params[-1][array.name] = name
                self.code.append('alignas(16) char %s[%d];' % (name, array.size))
                return
        if re.match(r'\.(pragma|branchtargets)\b', text):
            if 'branchtargets' in text:
                raise Unknown(self.line, text)
            return
        raise Unknown(self.line, text)

    def instruction(self, text):
        match = re.fullmatch(r'(?:@(!?)(%?[$\w]+)\s+)?([a-z][\w.:]*)\s*(.*)', text, re.S)
        if not match:
            raise Unknown(self.line, text)
        negated, guard, opcode, operands = match.groups()
        code = translate_opcode(self, opcode, split_commas(operands))
        return 'if (%s%s) { %s }' % (negated, self.read(guard, 'pred'), code) if guard else code

    def finish(self, index):
        depot = ['alignas(16) char depot[%d];' % self.depot.size] if self.depot else []
        sites = ['static unsigned sites[%d];' % self.sites] if self.sites else []
        return ['// %s' % self.name, 'static void kernel_%d(const char* params) {' % index, '(void)params;'] + \
            depot + sites + self.code + ['return;', '}']


# ---- opcodes -------------------------------------------------------------------------------------------------------
# Rows: a pattern of the whole opcode, and what makes C++ of its operands. `op` is the match, `a` the operands.
ROWS = []
found = {}  # opcode → (row, match), as met so far


def opcode(pattern):
    def add(function):
        ROWS.append((re.compile(pattern), function))
        return function
    return add


def translate_opcode(kernel, name, operands):
    if name not in found:
        for pattern, function in ROWS:
            match = pattern.fullmatch(name)
            if match:
                found[name] = (function, match)
                break
        else:
            raise Unknown(kernel.line, 'opcode ' + name)
    function, match = found[name]
    return function(kernel, match.groupdict(), operands)


INT = r'(?P<t>[su](?:16|32|64))'
BITS = r'(?P<t>b(?:16|32|64))'
FLOAT = r'(?P<t>f32|f64)'
ROUND = r'(?:\.(?P<r>rn|rz|rm|rp))?'
FTZ = r'(?P<ftz>\.ftz)?'
SAT = r'(?P<sat>\.sat)?'
MODES = {'rn': 'FE_TONEAREST', 'rz': 'FE_TOWARDZERO', 'rm': 'FE_DOWNWARD', 'rp': 'FE_UPWARD', None: 'FE_TONEAREST'}


def inputs(k, op, operands):
    """Floats as the instruction sees them: with .ftz, denormals are zeros of their sign."""
    return [('ptx_ftz(%s)' if op.get('ftz') else '%s') % k.read(x, op['t']) for x in operands]


def output(k, op, destination, expression):
    if op.get('ftz'):
        expression = 'ptx_ftz(%s)' % expression
    if op.get('sat'):
        expression = 'ptx_sat(%s)' % expression
    return k.write(destination, op['t'], expression)


# -- arithmetic of floats. To nearest is what the CPU does; other modes are switched to around one operation.
@opcode(r'(?P<o>add|sub|mul)%s%s%s\.%s' % (ROUND, FTZ, SAT, FLOAT))
def float_operation(k, op, a):
    x, y = inputs(k, op, a[1:])
    if op['r'] in (None, 'rn'):
        return output(k, op, a[0], '(%s %s %s)' % (x, {'add': '+', 'sub': '-', 'mul': '*'}[op['o']], y))
    return output(k, op, a[0], 'ptx_rounded_%s<%s>(%s, %s)' % (op['o'], MODES[op['r']], x, y))


@opcode(r'fma\.(?P<r>rn|rz|rm|rp)%s%s\.%s' % (FTZ, SAT, FLOAT))
def fused(k, op, a):
    x = ', '.join(inputs(k, op, a[1:]))
    if op['r'] == 'rn':
        return output(k, op, a[0], '%s(%s)' % ('fmaf' if op['t'] == 'f32' else 'fma', x))
    return output(k, op, a[0], 'ptx_rounded_fma<%s>(%s)' % (MODES[op['r']], x))


@opcode(r'div\.(?P<r>rn|rz|rm|rp)%s\.%s' % (FTZ, FLOAT))
def divide(k, op, a):
    x, y = inputs(k, op, a[1:])
    return output(k, op, a[0], '(%s / %s)' % (x, y) if op['r'] == 'rn' else
                  'ptx_rounded_div<%s>(%s, %s)' % (MODES[op['r']], x, y))


@opcode(r'(?P<o>rcp|sqrt)\.(?P<r>rn|rz|rm|rp)%s\.%s' % (FTZ, FLOAT))
def inverse_or_root(k, op, a):
    x, = inputs(k, op, a[1:])
    return output(k, op, a[0], 'ptx_rounded_%s<%s>(%s)' % (op['o'], MODES[op['r']], x))


# The GPU's approximations are libm's functions here, rounded once: their last bits are not a GPU's.
APPROXIMATE = {'rcp': 'ptx_rcp', 'sqrt': 'ptx_sqrt', 'rsqrt': 'ptx_rsqrt', 'ex2': 'ptx_ex2', 'lg2': 'ptx_lg2',
               'sin': 'ptx_sin', 'cos': 'ptx_cos', 'tanh': 'ptx_tanh'}


@opcode(r'(?P<o>rcp|sqrt|rsqrt|ex2|lg2|sin|cos|tanh)\.approx%s\.(?P<t>f32)' % FTZ)
def approximation(k, op, a):
    x, = inputs(k, op, a[1:])
    return output(k, op, a[0], '%s(%s)' % (APPROXIMATE[op['o']], x))


@opcode(r'div\.(?P<o>approx|full)%s\.(?P<t>f32)' % FTZ)
def divide_approximately(k, op, a):
    x, y = inputs(k, op, a[1:])
    return output(k, op, a[0], 'ptx_div_%s(%s, %s)' % (op['o'], x, y))


@opcode(r'(?P<o>min|max)%s(?P<nan>\.NaN)?\.%s' % (FTZ, FLOAT))
def float_extreme(k, op, a):
    x, y = inputs(k, op, a[1:])
    return output(k, op, a[0], 'ptx_%s%s(%s, %s)' % (op['o'], '_nan' if op['nan'] else '', x, y))


@opcode(r'(?P<o>neg|abs)%s\.%s' % (FTZ, FLOAT))
def float_sign(k, op, a):
    x, = inputs(k, op, a[1:])
    return output(k, op, a[0], '-%s' % x if op['o'] == 'neg' else 'fabs(%s)' % x)


@opcode(r'testp\.(?P<o>finite|infinite|number|notanumber|normal|subnormal)\.%s' % FLOAT)
def float_kind(k, op, a):
    x = k.read(a[1], op['t'])
    test = {'finite': 'isfinite(%s)', 'infinite': 'isinf(%s)', 'number': '!isnan(%s)', 'notanumber': 'isnan(%s)',
            'normal': 'isnormal(%s)', 'subnormal': '(fpclassify(%s) == FP_SUBNORMAL)'}[op['o']] % x
    return k.write(a[0], 'pred', test)


@opcode(r'copysign\.%s' % FLOAT)
def copy_sign(k, op, a):
    return k.write(a[0], op['t'], 'copysign(%s, %s)' % (k.read(a[2], op['t']), k.read(a[1], op['t'])))


# -- arithmetic of integers: unsigned in C++, so that nothing overflows undefined
def unsigned(t):
    return 'u' + t[1:]


@opcode(r'(?P<o>add|sub)\.%s' % INT)
def integer_sum(k, op, a):
    t = unsigned(op['t'])
    return k.write(a[0], t, '(%s)(%s %s %s)' % (C[t], k.read(a[1], t), '+' if op['o'] == 'add' else '-',
                                               k.read(a[2], t)))


@opcode(r'(?:mul)\.lo\.%s' % INT)
def product_low(k, op, a):
    t = unsigned(op['t'])
    return k.write(a[0], t, '(%s)((uint64_t)%s * (uint64_t)%s)' % (C[t], k.read(a[1], t), k.read(a[2], t)))


@opcode(r'mad\.lo\.%s' % INT)
def product_sum_low(k, op, a):
    t = unsigned(op['t'])
    return k.write(a[0], t, '(%s)((uint64_t)%s * (uint64_t)%s + (uint64_t)%s)' %
                   (C[t], k.read(a[1], t), k.read(a[2], t), k.read(a[3], t)))


def high(k, t, x, y):
    wide = '__int128' if t[0] == 's' else 'unsigned __int128'
    return '(%s)(((%s)%s * (%s)%s) >> %s)' % (C[unsigned(t)], wide, k.read(x, t), wide, k.read(y, t), t[1:])


@opcode(r'mul\.hi\.%s' % INT)
def product_high(k, op, a):
    return k.write(a[0], unsigned(op['t']), high(k, op['t'], a[1], a[2]))


@opcode(r'mad\.hi\.%s' % INT)
def product_sum_high(k, op, a):
    t = unsigned(op['t'])
    return k.write(a[0], t, '(%s)(%s + %s)' % (C[t], high(k, op['t'], a[1], a[2]), k.read(a[3], t)))


def wide_product(k, t, x, y):
    w = C[WIDE[t]]
    return '(%s)%s * (%s)%s' % (w, k.read(x, t), w, k.read(y, t))


@opcode(r'mul\.wide\.(?P<t>[su](?:16|32))')
def product_wide(k, op, a):
    return k.write(a[0], WIDE[op['t']], wide_product(k, op['t'], a[1], a[2]))


@opcode(r'mad\.wide\.(?P<t>[su](?:16|32))')
def product_sum_wide(k, op, a):
    w = WIDE[op['t']]
    u = unsigned(w)
    return k.write(a[0], u, '(%s)(%s) + %s' % (C[u], wide_product(k, op['t'], a[1], a[2]), k.read(a[3], u)))


@opcode(r'(?P<o>div|rem)\.%s' % INT)
def integer_quotient(k, op, a):
    return k.write(a[0], op['t'], 'ptx_%s(%s, %s, %d)' % (op['o'], k.read(a[1], op['t']), k.read(a[2], op['t']), k.line))


@opcode(r'(?P<o>min|max)\.%s' % INT)
def integer_extreme(k, op, a):
    x, y = k.read(a[1], op['t']), k.read(a[2], op['t'])
    return k.write(a[0], op['t'], '(%s %s %s ? %s : %s)' % (x, '<' if op['o'] == 'min' else '>', y, x, y))


@opcode(r'(?P<o>neg|abs)\.(?P<t>s(?:16|32|64))')
def integer_sign(k, op, a):
    t = unsigned(op['t'])
    minus = '(%s)(0 - %s)' % (C[t], k.read(a[1], t))
    return k.write(a[0], t, minus if op['o'] == 'neg' else
                   '(%s < 0 ? %s : %s)' % (k.read(a[1], op['t']), minus, k.read(a[1], t)))


@opcode(r'sad\.%s' % INT)
def sum_of_difference(k, op, a):
    t = unsigned(op['t'])
    x, y = k.read(a[1], op['t']), k.read(a[2], op['t'])
    return k.write(a[0], t, '(%s)((%s > %s ? (%s)%s - (%s)%s : (%s)%s - (%s)%s) + %s)' %
                   (C[t], x, y, C[t], x, C[t], y, C[t], y, C[t], x, k.read(a[3], t)))


# -- bits
@opcode(r'(?P<o>and|or|xor)\.(?P<t>pred|b16|b32|b64)')
def logic(k, op, a):
    return k.write(a[0], op['t'], '(%s)(%s %s %s)' % (C[op['t']], k.read(a[1], op['t']),
                                                     {'and': '&', 'or': '|', 'xor': '^'}[op['o']], k.read(a[2], op['t'])))


@opcode(r'not\.(?P<t>pred|b16|b32|b64)')
def complement(k, op, a):
    return k.write(a[0], op['t'], ('!%s' if op['t'] == 'pred' else '~%s') % k.read(a[1], op['t']))


@opcode(r'cnot\.%s' % BITS)
def is_zero(k, op, a):
    return k.write(a[0], op['t'], '(%s == 0)' % k.read(a[1], op['t']))


@opcode(r'lop3\.(?P<t>b32)')
def logic_table(k, op, a):
    return k.write(a[0], 'b32', 'ptx_lop3(%s)' % ', '.join(k.read(x, 'b32') for x in a[1:]))


@opcode(r'shl\.%s' % BITS)
def shift_left(k, op, a):
    return k.write(a[0], op['t'], 'ptx_shl(%s, %s)' % (k.read(a[1], op['t']), k.read(a[2], 'u32')))


@opcode(r'shr\.(?P<t>[bus](?:16|32|64))')
def shift_right(k, op, a):
    return k.write(a[0], op['t'], 'ptx_shr(%s, %s)' % (k.read(a[1], op['t']), k.read(a[2], 'u32')))


@opcode(r'shf\.(?P<o>[lr])\.(?P<m>wrap|clamp)\.(?P<t>b32)')
def funnel_shift(k, op, a):
    return k.write(a[0], 'b32', 'ptx_shf_%s_%s(%s)' % (op['o'], op['m'], ', '.join(k.read(x, 'b32') for x in a[1:])))


@opcode(r'bfe\.(?P<t>[su](?:32|64))')
def extract_field(k, op, a):
    return k.write(a[0], op['t'], 'ptx_bfe(%s, %s, %s)' % (k.read(a[1], op['t']), k.read(a[2], 'u32'),
                                                          k.read(a[3], 'u32')))


@opcode(r'bfi\.(?P<t>b(?:32|64))')
def insert_field(k, op, a):
    return k.write(a[0], op['t'], 'ptx_bfi(%s, %s, %s, %s)' % (k.read(a[1], op['t']), k.read(a[2], op['t']),
                                                              k.read(a[3], 'u32'), k.read(a[4], 'u32')))


@opcode(r'prmt\.(?P<t>b32)')
def permute_bytes(k, op, a):
    return k.write(a[0], 'b32', 'ptx_prmt(%s)' % ', '.join(k.read(x, 'b32') for x in a[1:]))


@opcode(r'(?P<o>popc|clz)\.(?P<t>b(?:32|64))')
def count_bits(k, op, a):
    return k.write(a[0], 'u32', 'ptx_%s(%s)' % (op['o'], k.read(a[1], op['t'])))


@opcode(r'brev\.(?P<t>b(?:32|64))')
def reverse_bits(k, op, a):
    return k.write(a[0], op['t'], 'ptx_brev(%s)' % k.read(a[1], op['t']))


@opcode(r'bfind(?P<o>\.shiftamt)?\.(?P<t>[su](?:32|64))')
def find_bit(k, op, a):
    return k.write(a[0], 'u32', 'ptx_bfind%s(%s)' % ('_shift' if op['o'] else '', k.read(a[1], op['t'])))


# -- comparison and selection
COMPARE = {'eq': '==', 'ne': '!=', 'lt': '<', 'le': '<=', 'gt': '>', 'ge': '>=',
           'lo': '<', 'ls': '<=', 'hi': '>', 'hs': '>='}


def comparison(k, op, x, y):
    t, c = op['t'], op['c']
    if t[0] != 'f':
        if c not in COMPARE:
            raise Unknown(k.line, 'comparison %s of .%s' % (c, t))
        return '(%s %s %s)' % (k.read(x, t), COMPARE[c], k.read(y, t))
    x, y = inputs(k, op, [x, y])
    if c == 'num':
        return '(!isnan(%s) && !isnan(%s))' % (x, y)
    if c == 'nan':
        return '(isnan(%s) || isnan(%s))' % (x, y)
    if c == 'ne':  # ordered: false where a NaN takes part
        return '(%s < %s || %s > %s)' % (x, y, x, y)
    if c in COMPARE:
        return '(%s %s %s)' % (x, COMPARE[c], y)
    if c == 'neu':
        return '(%s != %s)' % (x, y)
    return '(isnan(%s) || isnan(%s) || %s %s %s)' % (x, y, x, COMPARE[c[:-1]], y)


@opcode(r'setp\.(?P<c>eq|ne|lt|le|gt|ge|lo|ls|hi|hs|equ|neu|ltu|leu|gtu|geu|num|nan)(?:\.(?P<b>and|or|xor))?%s'
        r'\.(?P<t>[bus](?:16|32|64)|f32|f64)' % FTZ)
def set_predicate(k, op, a):
    first, _, second = a[0].partition('|')
    result = comparison(k, op, a[1], a[2])
    if op['b']:
        combine = {'and': '&', 'or': '|', 'xor': '^'}[op['b']]
        with_third = '(bool)(%s %s %s)'
        third = k.read(a[3], 'pred')
        code = 'bool c_ = %s, d_ = %s; ' % (result, third)
        code += k.write(first, 'pred', with_third % ('c_', combine, 'd_'))
        return '{ %s%s }' % (code, ' ' + k.write(second, 'pred', with_third % ('!c_', combine, 'd_')) if second else '')
    if second:
        return '{ bool c_ = %s; %s %s }' % (result, k.write(first, 'pred', 'c_'), k.write(second, 'pred', '!c_'))
    return k.write(first, 'pred', result)


@opcode(r'set\.(?P<c>eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan)%s\.(?P<d>u32|s32|f32)'
        r'\.(?P<t>[bus](?:16|32|64)|f32|f64)' % FTZ)
def set_value(k, op, a):
    yes = '1.0f : 0.0f' if op['d'] == 'f32' else '0xffffffffu : 0u'
    return k.write(a[0], op['d'], '(%s ? %s)' % (comparison(k, op, a[1], a[2]), yes))


@opcode(r'selp\.(?P<t>[bus](?:16|32|64)|f32|f64)')
def select(k, op, a):
    return k.write(a[0], op['t'], '(%s ? %s : %s)' % (k.read(a[3], 'pred'), k.read(a[1], op['t']), k.read(a[2], op['t'])))


@opcode(r'slct\.(?P<t>[bus](?:16|32|64)|f32|f64)\.s32')
def select_by_sign(k, op, a):
    return k.write(a[0], op['t'], '(%s >= 0 ? %s : %s)' % (k.read(a[3], 's32'), k.read(a[1], op['t']),
                                                          k.read(a[2], op['t'])))


# -- moves and conversions
def vector(operand):
    return [x.strip() for x in operand[1:-1].split(',')] if operand.startswith('{') else None


@opcode(r'mov\.(?P<t>pred|[bus](?:16|32|64)|f32|f64)')
def move(k, op, a):
    parts, t = vector(a[0]), op['t']
    if parts:  # the first is the lowest
        size = BYTES[t] // len(parts)
        code = ' '.join(k.write(x, 'b%d' % (8 * size), '(%s)(m_ >> %d)' % (UNSIGNED[size], 8 * size * i))
                        for i, x in enumerate(parts))
        return '{ const %s m_ = %s; %s }' % (C[t], k.read(a[1], t), code)
    parts = vector(a[1])
    if parts:
        size = BYTES[t] // len(parts)
        return k.write(a[0], t, '(%s)(%s)' % (C[t], ' | '.join(
            '(%s)%s << %d' % (C[t], k.read(x, 'b%d' % (8 * size)), 8 * size * i) for i, x in enumerate(parts))))
    return k.write(a[0], t, k.read(a[1], t))


@opcode(r'cvta(?:\.(?P<to>to))?\.(?P<s>global|local|shared|const|param)\.u64')
def convert_address(k, op, a):
    x = k.read(a[1], 'u64')
    if op['s'] == 'shared':
        x = ('ptx_to_shared(%s, %d)' % (x, k.line)) if op['to'] else 'ptx_from_shared(%s)' % x
    return k.write(a[0], 'u64', x)


@opcode(r'isspacep\.(?P<s>global|local|shared)')
def is_in_space(k, op, a):
    depot = 'depot, sizeof depot' if k.depot else 'NULL, 0'
    return k.write(a[0], 'pred', 'ptx_is_%s(%s, %s)' % (op['s'], k.read(a[1], 'u64'), depot))


@opcode(r'cvt%s\.(?P<d>[us](?:8|16|32|64))\.(?P<t>[us](?:8|16|32|64))' % SAT)
def convert_integer(k, op, a):
    x = k.read(a[1], op['t'])
    return k.write(a[0], op['d'], 'ptx_saturate<%s>(%s)' % (C[op['d']], x) if op['sat'] else '(%s)%s' % (C[op['d']], x))


@opcode(r'cvt\.(?P<r>rni|rzi|rmi|rpi)%s\.(?P<d>[us](?:8|16|32|64))\.(?P<t>f32|f64)' % FTZ)
def float_to_integer(k, op, a):
    x, = inputs(k, op, a[1:])
    return k.write(a[0], op['d'], 'ptx_to_integer<%s>(ptx_%s(%s))' % (C[op['d']], op['r'], x))


@opcode(r'cvt\.(?P<r>rn|rz|rm|rp)\.(?P<d>f32|f64)\.(?P<t>[us](?:8|16|32|64))')
def integer_to_float(k, op, a):
    x = k.read(a[1], op['t'])
    return k.write(a[0], op['d'], '(%s)%s' % (C[op['d']], x) if op['r'] == 'rn' else
                   'ptx_rounded_from<%s, %s>(%s)' % (MODES[op['r']], C[op['d']], x))


@opcode(r'cvt\.(?P<r>rni|rzi|rmi|rpi)%s%s\.(?P<t>f32|f64)\.(?:f32|f64)' % (FTZ, SAT))
def float_to_whole(k, op, a):
    x, = inputs(k, op, a[1:])
    return output(k, op, a[0], 'ptx_%s(%s)' % (op['r'], x))


@opcode(r'cvt%s\.f32\.f32' % (FTZ + SAT))
def float_to_float(k, op, a):
    op = dict(op, t='f32')
    x, = inputs(k, op, a[1:])
    return output(k, op, a[0], x)


@opcode(r'cvt%s\.f64\.f32' % FTZ)
def float_to_double(k, op, a):
    x, = inputs(k, dict(op, t='f32'), a[1:])
    return k.write(a[0], 'f64', '(double)%s' % x)


@opcode(r'cvt\.(?P<r>rn|rz|rm|rp)%s%s\.f32\.f64' % (FTZ, SAT))
def double_to_float(k, op, a):
    x = k.read(a[1], 'f64')
    return output(k, dict(op, t='f32'), a[0], '(float)%s' % x if op['r'] == 'rn' else
                  'ptx_rounded_from<%s, float>(%s)' % (MODES[op['r']], x))


@opcode(r'cvt%s\.f32\.bf16' % FTZ)
def bf16_to_float(k, op, a):
    return output(k, dict(op, t='f32'), a[0], 'bits<float>((uint32_t)%s << 16)' % k.read(a[1], 'b16'))


@opcode(r'cvt\.(?P<r>rn|rz)\.bf16\.f32')
def float_to_bf16(k, op, a):
    return k.write(a[0], 'b16', 'ptx_bf16_%s(%s)' % (op['r'], k.read(a[1], 'f32')))


@opcode(r'cvt\.(?P<r>rn|rz)\.bf16x2\.f32')
def floats_to_bf16x2(k, op, a):  # the first operand is the upper half
    f = 'ptx_bf16_%s(%%s)' % op['r']
    return k.write(a[0], 'b32', '((uint32_t)%s << 16 | %s)' % (f % k.read(a[1], 'f32'), f % k.read(a[2], 'f32')))


@opcode(r'cvt\.rn\.satfinite\.e4m3x2\.f32')
def floats_to_e4m3x2(k, op, a):  # the first operand is the upper half
    return k.write(a[0], 'b16', '(uint16_t)(ptx_e4m3(%s) << 8 | ptx_e4m3(%s))' % (k.read(a[1], 'f32'), k.read(a[2], 'f32')))


# -- memory. Hints of caches change nothing here.
HINTS = r'(?:\.(?:weak|volatile|relaxed\.\w+|acquire\.\w+|release\.\w+))?'
SPACE = r'(?:\.(?P<s>param|const|global|shared|local)(?:::cta|::entry|::func)?)?'
CACHE = r'(?:\.(?:ca|cg|cs|lu|cv|wb|wt|nc))*(?:\.L1::\w+|\.L2::\w+)*'
VECTOR = r'(?:\.(?P<v>v2|v4|v8))?'


@opcode(r'ld%s%s%s%s\.(?P<t>[bus](?:8|16|32|64)|f32|f64)' % (HINTS, SPACE, CACHE, VECTOR))
def load(k, op, a):
    targets, size = vector(a[0]) or [a[0]], BYTES[op['t']]
    if len(targets) != int((op['v'] or 'v1')[1:]):
        raise Unknown(k.line, 'a vector of %d registers' % len(targets))
    address = k.address(a[1], op['s'], size * len(targets))
    code = ' '.join(k.write(x, op['t'], 'ptx_load<%s>(q_ + %d)' % (C[op['t']], i * size)) for i, x in enumerate(targets))
    return '{ const char* q_ = %s; %s }' % (address, code)


@opcode(r'st%s%s%s%s\.(?P<t>[bus](?:8|16|32|64)|f32|f64)' % (HINTS, SPACE, CACHE, VECTOR))
def store(k, op, a):
    sources, size = vector(a[1]) or [a[1]], BYTES[op['t']]
    if len(sources) != int((op['v'] or 'v1')[1:]):
        raise Unknown(k.line, 'a vector of %d registers' % len(sources))
    address = k.address(a[0], op['s'], size * len(sources))
    code = ' '.join('ptx_store<%s>(q_ + %d, %s);' % (C[op['t']], i * size, k.read(x, op['t']))
                    for i, x in enumerate(sources))
    return '{ char* q_ = %s; %s }' % (address, code)


@opcode(r'prefetch(?:u)?(?:\.global|\.local)?\.(?:L1|L2)')
def prefetch(k, op, a):
    return ';'


@opcode(r'(?:membar|fence)(?:\.\w+)+')
def fence(k, op, a):
    return '__atomic_thread_fence(__ATOMIC_SEQ_CST);'


ATOMIC = r'(?:\.(?:relaxed|acquire|release|acq_rel))?(?:\.(?:cta|gpu|sys))?(?:\.(?P<s>global|shared))?'


@opcode(r'(?P<o>atom)%s\.(?P<f>add|min|max|and|or|xor|exch|inc|dec)\.(?P<t>[bus](?:32|64))' % ATOMIC)
def atomic(k, op, a):  # of integers: sums of floats must not depend on timing (dev/cpu)
    return k.write(a[0], op['t'], 'ptx_atomic_%s((%s*)%s, %s)' %
                   (op['f'], C[op['t']], k.address(a[1], op['s'], BYTES[op['t']]), k.read(a[2], op['t'])))


@opcode(r'red%s\.(?P<f>add|min|max|and|or|xor|inc|dec)\.(?P<t>[bus](?:32|64))' % ATOMIC)
def reduction(k, op, a):
    return '(void)ptx_atomic_%s((%s*)%s, %s);' % (op['f'], C[op['t']], k.address(a[0], op['s'], BYTES[op['t']]),
                                                 k.read(a[1], op['t']))


@opcode(r'atom%s\.cas\.(?P<t>[bus](?:32|64))' % ATOMIC)
def compare_and_swap(k, op, a):
    return k.write(a[0], op['t'], 'ptx_atomic_cas((%s*)%s, %s, %s)' %
                   (C[op['t']], k.address(a[1], op['s'], BYTES[op['t']]), k.read(a[2], op['t']), k.read(a[3], op['t'])))


# -- control
@opcode(r'bra(?:\.uni)?')
def branch(k, op, a):
    return 'goto %s;' % c_label(a[0])


@opcode(r'(?:ret|exit)(?:\.uni)?')
def leave(k, op, a):
    return 'return;'


@opcode(r'trap')
def trap(k, op, a):
    return 'ptx_trap(%d);' % k.line


@opcode(r'call(?:\.uni)?')
def call(k, op, a):
    if len(a) == 3 and a[1] == 'vprintf':
        names = [x.strip() for x in a[2][1:-1].split(',')] + [a[0][1:-1].strip()]
        where = []
        for name in names:
            where += [scope[name] for scope in reversed(k.call_params) if name in scope][:1]
        if len(where) == 3:
            return 'ptx_vprintf(%s, %s, %s);' % tuple(where)
    raise Unknown(k.line, 'call of ' + (a[1] if len(a) > 1 else ' '.join(a)))


# -- what a block or a warp does together
@opcode(r'(?:bar|barrier)\.sync(?:\.aligned)?')
def barrier(k, op, a):
    if a != ['0']:
        raise Unknown(k.line, 'barrier ' + ', '.join(a))
    return 'cpu_barrier(ptx_file, %d);' % k.line


@opcode(r'bar\.warp\.sync')
def warp_barrier(k, op, a):
    return 'cpu_collect(CPU_SYNCWARP, %s, NULL, NULL, NULL, ptx_file, %d);' % (k.read(a[0], 'u32'), k.line)


@opcode(r'shfl\.sync\.(?P<m>up|down|bfly|idx)\.b32')
def shuffle(k, op, a):
    first, _, second = a[0].partition('|')
    call = 'uint32_t x_; bool in_ = ptx_shuffle_%s(&x_, %s, %s, %s, %s, %d);' % (
        op['m'], k.read(a[1], 'b32'), k.read(a[2], 'u32'), k.read(a[3], 'u32'), k.read(a[4], 'u32'), k.line)
    code = ' (void)in_; ' + k.write(first, 'b32', 'x_')
    return '{ %s%s%s }' % (call, code, ' ' + k.write(second, 'pred', 'in_') if second else '')


@opcode(r'vote\.sync\.(?P<m>all|any|uni)\.pred')
def vote(k, op, a):
    return k.write(a[0], 'pred', 'ptx_vote_%s(%s, %s, %d)' % (op['m'], k.read(a[1], 'pred'), k.read(a[2], 'u32'), k.line))


@opcode(r'vote\.sync\.ballot\.b32')
def ballot(k, op, a):
    return k.write(a[0], 'b32', 'ptx_ballot(%s, %s, %d)' % (k.read(a[1], 'pred'), k.read(a[2], 'u32'), k.line))


@opcode(r'redux\.sync\.(?P<f>add|min|max|and|or|xor)\.(?P<t>[bus]32)')
def warp_reduction(k, op, a):
    return k.write(a[0], op['t'], 'ptx_redux_%s<%s>(%s, %s, %d)' % (op['f'], C[op['t']], k.read(a[1], op['t']),
                                                                   k.read(a[2], 'u32'), k.line))


@opcode(r'ldmatrix\.sync\.aligned\.m8n8\.(?P<n>x1|x2|x4)(?P<o>\.trans)?\.shared(?:::cta)?\.b16')
def load_matrix(k, op, a):
    targets = vector(a[0])
    if len(targets) != int(op['n'][1:]):
        raise Unknown(k.line, 'ldmatrix of %d registers' % len(targets))
    code = ' '.join(k.write(x, 'b32', 'x_[%d]' % i) for i, x in enumerate(targets))
    # An address is used of the lanes that name a row: 8 for each matrix.
    used = 8 * len(targets)
    check = '' if used == 32 else 'cpu_lane() >= %d ? NULL : ' % used
    return '{ uint32_t x_[4]; const char* q_ = %s%s; ptx_ldmatrix(x_, q_, %d, %s, %d); %s }' % (
        check, k.address(a[1], 'shared', 16), len(targets), 'true' if op['o'] else 'false', k.line, code)


@opcode(r'mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.bf16\.bf16\.f32')
def multiply_matrices(k, op, a):
    d, x, y, c = (vector(v) for v in a)
    if [len(v) for v in (d, x, y, c)] != [4, 4, 2, 4]:
        raise Unknown(k.line, 'mma with other fragments')
    code = ' '.join(k.write(v, 'f32', 'd_[%d]' % i) for i, v in enumerate(d))
    return '{ float d_[4] = {%s}; const uint32_t a_[4] = {%s}, b_[2] = {%s}; ptx_mma(d_, a_, b_, %d); %s }' % (
        ', '.join(k.read(v, 'f32') for v in c), ', '.join(k.read(v, 'b32') for v in x),
        ', '.join(k.read(v, 'b32') for v in y), k.line, code)


@opcode(r'cp\.async\.(?P<c>ca|cg)\.shared(?:::cta)?\.global(?:\.L2::(?:\w+))*')
def copy_async(k, op, a):
    size = int(a[2])
    if size not in ((16,) if op['c'] == 'cg' else (4, 8, 16)):
        raise Unknown(k.line, 'cp.async.%s of %d bytes' % (op['c'], size))
    if len(a) > 3 and k.register(a[3]) == 'pred':
        raise Unknown(k.line, 'cp.async with ignore-src')
    read = 'min(%s, %du)' % (k.read(a[3], 'u32'), size) if len(a) > 3 else '%du' % size
    to = k.address(a[0], 'shared', size)
    match = re.fullmatch(r'\[([%$\w.]+)\s*(?:\+\s*(-?\d+))?\]', a[1])
    k.sites += 1
    source = '(uint64_t)%s + %dull' % (k.read(match.group(1), 'u64'), int(match.group(2) or 0) & (2 ** 64 - 1))
    return '{ char* q_ = %s; ptx_cp_async(q_, %s, %d, %s, %d, &sites[%d]); }' % (to, source, size, read, k.line,
                                                                                k.sites - 1)


@opcode(r'cp\.async\.commit_group')
def copy_commit(k, op, a):
    return 'cp_async_commit();'


@opcode(r'cp\.async\.wait_group')
def copy_wait(k, op, a):
    return 'cpu_async_wait(%d);' % int(a[0])


@opcode(r'cp\.async\.wait_all')
def copy_wait_all(k, op, a):
    return 'cp_async_commit(); cpu_async_wait(0);'


# ---- a module ------------------------------------------------------------------------------------------------------
class Module:
    def __init__(self):
        self.shared, self.globals, self.kernels = {}, {}, []

    def add_shared(self, array, line):
        if array.name in self.shared:
            raise Unknown(line, 'a second shared array ' + array.name)
        if array.align > 128:
            raise Unknown(line, 'a shared array aligned to %d bytes' % array.align)
        self.shared[array.name] = array

    def variable(self, line, text):
        match = Array.pattern.fullmatch(' '.join(text.split()))
        if not match:
            raise Unknown(line, text.strip()[:80])
        array = Array(match)
        if array.space == 'shared':
            self.add_shared(array, line)
        elif array.space in ('global', 'const'):
            if array.initial and not re.fullmatch(r'\{?[-\w\s,]*\}?', array.initial):
                raise Unknown(line, 'initial values of ' + array.name)
            self.globals[array.name] = array
        else:
            raise Unknown(line, text)


def parse(text, only=''):
    text = without_comments(text)
    module, at = Module(), 0
    pattern = re.compile(r'\s*(?:'
                         r'\.(?:version|target|address_size|file)[^\n]*\n'
                         r'|(?P<section>\.section\s+[^{]*\{[^}]*\})'
                         r'|(?P<extern>\.extern\s+\.func[^;]*;)'
                         r'|(?:\.(?:visible|weak)\s+)?\.entry\s+(?P<entry>[$\w]+)\s*\((?P<params>[^)]*)\)(?P<tuning>[^{]*)\{'
                         r'|(?P<variable>(?:\.(?:extern|visible|weak)\s+)*\.(?:global|const|shared)\s[^;]*);)')
    while text[at:].strip():
        match = pattern.match(text, at)
        line = text.count('\n', 0, at + len(text[at:]) - len(text[at:].lstrip())) + 1
        if not match:
            raise Unknown(line, text[at:].strip().split('\n')[0])
        at = match.end()
        if match.group('variable'):
            module.variable(line, match.group('variable'))
        elif match.group('entry'):
            depth, end = 1, at
            while depth:
                end = re.compile(r'[{}]').search(text, end).end()
                depth += 1 if text[end - 1] == '{' else -1
            if not re.search(only, match.group('entry')):
                at = end
                continue
            kernel = Kernel(module, match.group('entry'), match.group('params'), line)
            first = text.count('\n', 0, at) + 1
            for number, statement in statements(text[at:end - 1], first):
                kernel.statement(number, statement)
            module.kernels.append(kernel)
            at = end
    return module


MARGIN = 64  # bytes between shared arrays: an access there is out of bounds


def emit(module, name, source, arch):
    out = ['// %s, translated by dev/ptx/translate.py' % name, '#include "ptx_run.h"',
           'static const char ptx_file[] = "%s";' % name, '#include "ptx_access.h"']
    for array in module.globals.values():
        values = array.initial if array.initial else '{}'
        if not values.startswith('{'):
            values = '{%s}' % values
        count = max(1, array.size // BYTES[array.type])
        out.append('alignas(16) static %s %s[%d] = %s;' % (C[array.type], array.c_name, count, values))
    # Where a shared array is in the block's window: the same in all kernels of the module; the dynamic one is the last.
    at, dynamic = MARGIN, None
    for array in module.shared.values():
        if array.size == 0:
            dynamic = array
            continue
        at = (at + 127) // 128 * 128
        out.append('enum { AT_%s = %d };' % (array.c_name, at))
        array.at = at
        at += array.size + MARGIN
    if dynamic:
        dynamic.at = (at + 127) // 128 * 128
        out.append('enum { AT_%s = %d };' % (dynamic.c_name, dynamic.at))
    for i, kernel in enumerate(module.kernels):
        out += kernel.finish(i)
        for array in kernel.shared.values():
            if array.size:
                out.append('// shared: %s' % array.name)
        arrays = sorted(kernel.shared.values(), key=lambda x: x.size)  # the dynamic one first, it is used most
        out.append('static const PtxArray arrays_%d[] = {%s{0, 0}};' %
                   (i, ''.join('{%d, %d}, ' % (x.at, x.size) for x in arrays)))
    out.append('static const PtxKernel kernels[] = {')
    for i, kernel in enumerate(module.kernels):
        out.append('    {"%s", "%s", "%s", ptx_file, kernel_%d, %d, arrays_%d, %d},' %
                   (kernel.name, arch, source, i, kernel.parameter_bytes, i, len(kernel.shared)))
    out.append('};')
    ranges = ''.join('{%s, sizeof %s}, ' % (g.c_name, g.c_name) for g in module.globals.values())
    out.append('static const PtxVariable variables[] = {%s{NULL, 0}};' % ranges)
    out.append('static PtxModule module(kernels, %d, variables);' % len(module.kernels))
    return '\n'.join(out) + '\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--source', required=True, help='the .cu file, as its launches name it')
    parser.add_argument('--arch', required=True, help='sm_80, sm_90, …')
    parser.add_argument('--only', default='', help='a pattern of the (mangled) kernels to translate; all')
    parser.add_argument('ptx')
    parser.add_argument('cpp')
    arguments = parser.parse_args()
    with open(arguments.ptx, encoding='utf-8') as file:
        text = file.read()
    try:
        module = parse(text, arguments.only)
        code = emit(module, arguments.ptx, arguments.source, arguments.arch)
    except Unknown as unknown:
        line, what = unknown.args
        sys.exit('%s:%d: unknown %s' % (arguments.ptx, line, what))
    with open(arguments.cpp, 'w', encoding='utf-8') as file:
        file.write(code)


if __name__ == '__main__':
    main()
