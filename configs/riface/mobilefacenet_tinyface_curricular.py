# RI-Face with CurricularFace's margin in place of ArcFace's, for open-set identification.
_base_ = ['./mobilefacenet_tinyface.py']

model = dict(head=dict(loss=dict(_delete_=True, type='CurricularFaceLoss', scale=64.0, margin=0.5)))
