# Every quality measure that needs no training of its own, beside those that the model predicts:
# for the comparison of judges (docs/quality.md). CCS and CCAS are fitted to the training faces, and
# the layers of FROQ are chosen on them.
quality_measures = [
    dict(type='SERFIQQuality'),
    dict(type='PreFIQsQuality'),
    dict(type='CCSQuality'),
    dict(type='CCASQuality'),
    dict(type='GraFIQsQuality', block=-4),
    dict(type='FROQQuality'),
]
