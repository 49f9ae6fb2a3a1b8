_base_ = ['./mobilefacenet_tinyface.py']

gate = dict(type='QualityGate', quality=dict(type='SharpnessQuality'))
model = dict(backbone=dict(adapter=dict(gate=gate)))
