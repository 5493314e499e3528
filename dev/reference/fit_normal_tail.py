"""The polynomial of gelu.cu's erf form: 1 − Φ(x) = exp(−x²/2) · t · P(t), t = 1 / (1 + 0.35 x), for 0 ≤ x ≤ 15, fitted for the least relative error by
Lawson's reweighted least squares on Chebyshev nodes. Prints P's coefficients, constant first, and the largest relative error of the fit.

    python fit_normal_tail.py
"""
import mpmath
import numpy as np

K, DEGREE, END, NODES = 0.35, 8, 15.0, 400
mpmath.mp.dps = 40
low = 1 / (1 + K * END)
t = (1 + low) / 2 + (1 - low) / 2 * np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
x = [(1 / mpmath.mpf(v) - 1) / K for v in t]
wanted = np.array([float(mpmath.erfc(v / mpmath.sqrt(2)) / 2 * mpmath.exp(v * v / 2) / u) for v, u in zip(x, t)])
powers, weight = np.vander(t, DEGREE + 1, increasing=True), 1 / wanted
for _ in range(200):
    P = np.linalg.lstsq(powers * weight[:, None], wanted * weight, rcond=None)[0]
    error = np.abs(powers @ P - wanted) / wanted
    weight *= np.sqrt(1 + error / error.max())
    weight /= weight.max()
print("P:", ", ".join(f"{c:.9g}f" for c in P))
print(f"largest relative error: {error.max():.1e}")
