"""One made-up key of each shape."""

from __future__ import annotations

_RUN = "a1B2c3D4e5F6g7H8"

KEYS = (
    f"sk-proj-{_RUN}{_RUN}",
    f"sk-ant-api03-{_RUN}-{_RUN}",
    f"pk-lf-{_RUN}",
    f"sk_{_RUN}{_RUN}",
    f"rk_{_RUN}{_RUN}",
    *(f"{kind}_{mode}_{_RUN}" for kind in ("sk", "rk", "pk") for mode in ("live", "test")),
    *(f"gh{kind}_{_RUN}{_RUN}" for kind in "pousr"),
    f"github_pat_{_RUN}_{_RUN}",
    f"glpat-{_RUN}",
    *(f"xox{kind}-123456789012-ABCDEFGH" for kind in "abposr"),
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE",
    f"AIza{_RUN}{_RUN}",
    f"ya29.{_RUN}_{_RUN}",
    f"hf_{_RUN}{_RUN}",
    f"gsk_{_RUN}{_RUN}",
    f"nvapi-{_RUN}{_RUN}",
    f"xai-{_RUN}{_RUN}",
    f"r8_{_RUN}{_RUN}",
    f"npm_{_RUN}{_RUN}",
    f"whsec_{_RUN}{_RUN}",
    "xapp-1-A0123456789-123456789012-abcdef",
    f"GOCSPX-{_RUN}{_RUN}",
    f"pplx-{_RUN}{_RUN}",
    f"dckr_pat_{_RUN}{_RUN}",
    f"dop_v1_{'0a1b2c3d' * 8}",
    f"shpat_{'0a1b2c3d' * 4}",
    f"hvs.{_RUN}{_RUN}",
    f"pypi-{_RUN}{_RUN}",
    f"SG.{_RUN}.{_RUN}",
    f"eyJhbGciOiJIUzI1NiJ9.{_RUN}.{_RUN}",
    "glpat-ABCDEFGHIJKLMNOPQRST",
    "hf_abcdefghijklmnopqrstuvwxyz",
    f"-----BEGIN PRIVATE KEY-----{_RUN}-----END PRIVATE KEY-----",
)
